"""The page's engine in a real browser, against JAX and the tokenizer: logits of models and circuits with every option,
ids of files and of any bytes."""

import dataclasses
import json
import random
import statistics
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from sparse_gpt import stored
from sparse_gpt.circuits.circuit import Circuit
from sparse_gpt.config import Config, PruneConfig
from sparse_gpt.data import Tokenizer
from sparse_gpt.data.tokenizer import END_OF_TEXT
from sparse_gpt.page.modules import join_modules
from sparse_gpt.page.weights import as_text, pack_model
from sparse_gpt.parameters import Params
from sparse_gpt.sparsity.topk import abs_topk
from sparse_gpt.visible import visible
from tests import circuits_model as toy
from tests.browser import Page, open_page
from tests.page_workdir import by_jax, random_circuit

pytestmark = pytest.mark.browser

TOLERANCE = 1e-4
BYTES = Tokenizer({bytes([i]): i for i in range(256)}, [], {END_OF_TEXT: 256})
HELPERS = """
async function loadModel(text, circuit) {
  const tensors = new Tensors(await gunzip(bytesOfText(text)));
  globalThis.held = { model: new Model(tensors), tensors };
  if (circuit) held.circuit = new Circuit(held.model, circuit, tensors);
}
function runBoth(tokens, changes = {}) {
  const full = forward(held.model, tokens), { norms } = full;
  const part = forward(held.model, tokens, { circuit: held.circuit, norms, changes: new Changes(changes) });
  const logits = (pass) => tokens.flatMap((_, t) => [...pass.logitsAt(t)]);
  const listed = (arrays) => arrays.map((each) => [...each]);
  const sites = Object.fromEntries(Object.entries(part.sites).map(([site, arrays]) => [site, listed(arrays)]));
  return { full: logits(full), circuit: logits(part), sites, attention: listed(part.attention) };
}
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with open_page(tmp_path_factory.mktemp("browser")) as opened:
        modules = join_modules("engine/tensors.js", "engine/tokenizer.js", "engine/forward.js")
        opened.evaluate(f"{modules}\n{HELPERS}\n0")
        yield opened


def load(page: Page, config: Config, params: Params, tokenizer: Tokenizer, circuit: Circuit) -> None:
    ablation = {f"ablation/{site}": values for site, values in circuit.values.items()}
    packed = as_text(pack_model(config, params, tokenizer, ablation))
    page.evaluate(f"loadModel({json.dumps(packed)}, {json.dumps(circuit.to_dict())})")


CASES: dict[str, tuple[dict[str, Any], bool]] = {
    "as trained": ({"activation_fraction": 0.25}, True),
    "no AbsTopK": ({"attention_sink": False, "bigram": False, "bias": False, "final_bias": False}, False),
    "edges without biases and sinks": ({"attention_sink": False, "bias": False}, True),
    "layer norm": (
        {"norm": "layer", "norm_bias": True, "activation": "relu", "position": "additive", "tied": True},
        True,
    ),
    "layer norm without bias": ({"norm": "layer", "activation_fraction": 0.5}, True),
    "concatenated positions": ({"position": "concat", "d_position": 3, "activation_fraction": 0.5}, True),
    "sinusoids": ({"position": "sinusoidal", "d_position": 4, "residual_activation": "relu"}, True),
    "one head, one token kept": ({"n_head": 1, "n_layer": 1, "d_head": 6, "activation_fraction": 1 / 24}, False),
}


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["live", "frozen"])
@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_jax(page: Page, case: str, norm: str) -> None:
    options, pruned = CASES[case]
    config = toy.config(prune=PruneConfig(norm=norm), **options)
    if case == "sinusoids":  # AbsTopK on the residual stream too, but not everywhere
        sites = ("attn_in", "attn_k", "mlp_neuron", "resid_post_attn", "resid_post_mlp")
        sparsity = dataclasses.replace(config.sparsity, activation_fraction=0.5, activation_sites=sites)
        config = dataclasses.replace(config, sparsity=sparsity)
    params, values = toy.params(config, 1), toy.random_vectors(config, 2)
    circuit = random_circuit(config, params, values, pruned)
    tokens = np.random.default_rng(0).integers(0, toy.VOCABULARY, config.model.context).astype(np.int32)
    full, through, store = by_jax(config, params, circuit, tokens)
    load(page, config, params, BYTES, circuit)
    found = page.evaluate(f"runBoth({tokens.tolist()})")
    np.testing.assert_allclose(np.reshape(found["full"], full.shape), full, atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(np.reshape(found["circuit"], full.shape), through, atol=TOLERANCE, rtol=0)
    kept = circuit.gates(config.model)
    for (site, layer), expected in store.items():
        seen = np.reshape(found["sites"][site][layer], expected.shape[1:])
        open_nodes = kept[site][layer] > 0  # a carrier of removed edges holds another value than its own
        np.testing.assert_allclose(seen[:, open_nodes], expected[0][:, open_nodes], atol=TOLERANCE, rtol=0)


@pytest.mark.slow
def test_changed_nodes_edges_and_attention(page: Page) -> None:
    """A node that is set; an edge that carries another prompt's value; attention of another prompt."""
    config = toy.config(n_layer=1)
    params, values = toy.params(config, 1), toy.random_vectors(config, 2)
    circuit = random_circuit(config, params, values, False)
    rng = np.random.default_rng(0)
    tokens, other = (rng.integers(0, toy.VOCABULARY, 9).astype(np.int32) for _ in range(2))
    load(page, config, params, BYTES, circuit)
    node = next(n for n in circuit.nodes if n.site == "mlp_in")

    def set_node(site: str, layer: int, x: Any) -> Any:
        return x.at[0, 4, node.channel].set(2.5) if (site, layer) == (node.site, node.layer) else x

    _, expected, _ = by_jax(config, params, circuit, tokens, set_node)
    change = {"layer": 0, "site": node.site, "channel": node.channel}
    setting = (
        f"{{nodes: [{{...{json.dumps(change)}, values: Array.from({{length: 9}}, (_, t) => t === 4 ? 2.5 : NaN)}}]}}"
    )
    found = page.evaluate(f"runBoth({tokens.tolist()}, {setting})")
    np.testing.assert_allclose(np.reshape(found["circuit"], expected.shape), expected, atol=TOLERANCE, rtol=0)

    # All edges of a node changed to another prompt's values are the node itself changed to them.
    patch = page.evaluate(f"runBoth({other.tolist()})")
    for source in ("attn_in", "attn_v", "mlp_in", "mlp_neuron"):
        mine = next(edge.source for edge in circuit.edges if edge.source.site == source)
        width = circuit.values[source].shape[1]
        row = np.reshape(patch["sites"][source][0], (9, width))[:, mine.channel].tolist()
        row[3] = float("nan")  # there nothing changes
        edges = [
            {
                "layer": 0,
                "source": source,
                "from": mine.channel,
                "target": e.target.site,
                "to": e.target.channel,
                "values": row,
            }
            for e in circuit.edges
            if e.source == mine
        ]
        whole = {"nodes": [{"layer": 0, "site": source, "channel": mine.channel, "values": row}]}
        by_edges, by_node = (
            page.evaluate(f"runBoth({tokens.tolist()}, {json.dumps(each)})") for each in ({"edges": edges}, whole)
        )
        plain = page.evaluate(f"runBoth({tokens.tolist()})")
        site = {"attn_in": "attn_q", "attn_v": "attn_out", "mlp_in": "mlp_neuron", "mlp_neuron": "mlp_out"}[source]
        open_nodes = circuit.gates(config.model)[site][0] > 0  # what reaches closed nodes does not matter
        a, b, c = (np.reshape(each["sites"][site][0], (9, -1))[:, open_nodes] for each in (by_edges, by_node, plain))
        np.testing.assert_allclose(a, b, atol=TOLERANCE, rtol=0)
        assert np.abs(a - c).max() > 1e-3
    heads = [{"layer": 0, "head": 1, "weights": np.reshape(patch["attention"][0], (2, 81))[1].tolist()}]
    found = page.evaluate(f"runBoth({tokens.tolist()}, {json.dumps({'heads': heads})})")
    np.testing.assert_array_equal(np.reshape(found["attention"][0], (2, 81))[1], heads[0]["weights"])
    assert np.abs(np.subtract(found["circuit"], plain["circuit"])).max() > 1e-3


def test_an_activation_that_is_not_there_is_refused(page: Page) -> None:
    said = page.evaluate(
        "(() => { try { activate(new Float32Array(1), 'swish'); } catch (e) { return e.message; } })()"
    )
    assert said == "activation swish: not one that this page has"


@pytest.mark.parametrize("norm", ["live", "frozen"])
def test_layers_before_the_first_change_may_be_taken_over(page: Page, norm: str) -> None:
    """From the pass without changes: to the last bit what the whole pass gives."""
    config = toy.config(0.25, prune=PruneConfig(norm=norm), n_layer=3)
    params, values = toy.params(config, 1), toy.random_vectors(config, 2)
    circuit = random_circuit(config, params, values, True)
    load(page, config, params, BYTES, circuit)
    for layer in range(3):
        node = next(n for n in circuit.nodes if n.layer == layer and n.site == "mlp_in")
        change = {"layer": layer, "site": node.site, "channel": node.channel, "values": [2.5] * 9}
        equal, changed = page.evaluate(
            f"""(() => {{
              const tokens = [3, 1, 4, 1, 5, 9, 2, 6, 5], {{ norms }} = forward(held.model, tokens);
              const unchanged = forward(held.model, tokens, {{ circuit: held.circuit, norms }});
              const changes = new Changes({{ nodes: [{json.dumps(change)}] }});
              const options = {{ circuit: held.circuit, norms, changes }};
              const [whole, part] = [options, {{ ...options, unchanged }}].map((o) => forward(held.model, tokens, o));
              const text = ({{ logitsAt, ...pass }}) => JSON.stringify([logitsAt(8), pass]);
              return [text(whole) === text(part), text(whole) !== text(unchanged)];
            }})()"""
        )
        assert (equal, changed) == (True, True), layer


@pytest.mark.parametrize("k", [0, 1, 5, 31, 32])
def test_the_largest_channels_are_kept_as_by_jax(page: Page, k: int) -> None:
    """Ties, zeros, infinities and NaN among them."""
    rng = np.random.default_rng(k)
    rows = np.round(rng.standard_normal((20, 32)) * 2).astype(np.float32)
    rows[3, [2, 9]], rows[4, 5], rows[5], rows[6] = np.nan, -np.inf, 0, 1
    expected = np.asarray(abs_topk(jnp.asarray(rows), k))
    words = rows.ravel().view(np.uint32).tolist()
    found = page.evaluate(
        f"(() => {{ const x = new Float32Array(Uint32Array.from({words}).buffer); absTopK(x, 32, {k});"
        " return [...new Uint32Array(x.buffer)]; })()"
    )
    np.testing.assert_array_equal(np.array(found, np.uint32).view(np.float32).reshape(20, 32), expected)


def ids_of_page(page: Page, data: list[bytes]) -> list[list[int]]:
    texts = json.dumps([each.decode("latin-1") for each in data])
    found: list[list[int]] = page.evaluate(f"{texts}.map((each) => coder.encodeBytes(bytesOfLatin(each)))")
    return found


@pytest.fixture(scope="module")
def coder(page: Page, tokenizer_of_1024: Tokenizer) -> Tokenizer:
    tokens = [tokenizer_of_1024.token_bytes(i).decode("latin-1") for i in range(1024)]
    page.evaluate(f"globalThis.coder = new Tokenizer({json.dumps(tokens)}, [{tokenizer_of_1024.eot_id}]); 0")
    return tokenizer_of_1024


ODD = [
    "",
    " ",
    "\ufeffx",
    "\x85a \x85",
    "x  \x85\n",
    "x  \ufeff\n",
    "\x1c\x1d b",
    "a\u200bb",
    "٣٤٥٦",
    "x\r\n\r\n  \ty",
    "éa\u0301",
    "</script>",
    "<|endoftext|>",
]
ODD += [
    "\U0001f600" * 3,
    "שלום \u202e",
    " " * 9000 + "x",
    "\n" * 5000 + "\t" * 4097,
    "don't I'LL",
    "\u3000\u2028 a",
    "a//\n/ b",
]


@pytest.mark.slow
def test_ids_are_those_of_the_tokenizer(page: Page, coder: Tokenizer) -> None:
    files = [path.read_bytes() for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("[d-f]*.py"))[:12]]
    rng = random.Random(0)
    noise = [rng.randbytes(rng.randrange(1, 60)) for _ in range(300)]
    mixed = [bytes(rng.choices(b"ab \xe2\x82\xac\xf0\x9f\x98\x80\xed\xa0\x80\n1", k=30)) for _ in range(300)]
    data = [*files, *(text.encode() for text in ODD), *noise, *mixed]
    assert ids_of_page(page, data) == [coder.encode_bytes(each) for each in data]
    halves = ["a\ud83d b", "\ude00", "x\ud800\udc00\udfff"]
    assert page.evaluate(f"{json.dumps(halves)}.map((text) => coder.encode(text))") == [
        coder.encode(text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")) for text in halves
    ]


def test_tokens_are_shown_as_everywhere(page: Page, coder: Tokenizer) -> None:
    ids = range(coder.vocab_size)
    assert page.evaluate(f"Array.from({{length: {coder.vocab_size}}}, (_, id) => coder.show(id))") == [
        visible(coder.token_text(i)) for i in ids
    ]
    odd = ["\u200b·", "↵∅", "\x7f", "שa", "\U0001f600", "\u2028"]
    shown = page.evaluate(f"{json.dumps(odd)}.map((t) => new Tokenizer([unescape(encodeURIComponent(t))], []).show(0))")
    assert shown == [visible(text) for text in odd]


@pytest.mark.slow
def test_the_stored_model(page: Page, capsys: pytest.CaptureFixture[str]) -> None:
    """Its logits, and how long a pass of 64 tokens takes; that is printed, for machines differ."""
    config, params = stored.load("laptop")
    values = toy.random_vectors(config, 2)
    circuit = random_circuit(config, params, values, True)
    tokens = np.random.default_rng(0).integers(0, config.model.vocab_size, 64).astype(np.int32)
    full, through, _ = by_jax(config, params, circuit, tokens)
    load(page, config, params, BYTES, circuit)
    found = page.evaluate(f"runBoth({tokens.tolist()})")
    np.testing.assert_allclose(np.reshape(found["full"], full.shape), full, atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(np.reshape(found["circuit"], full.shape), through, atol=TOLERANCE, rtol=0)
    milliseconds = page.evaluate(
        f"(() => {{ const tokens = {tokens.tolist()}, taken = [];"
        " for (let i = 0; i < 31; i++) { const start = performance.now(); forward(held.model, tokens).logitsAt(63);"
        " taken.push(performance.now() - start); } return taken; })()"
    )
    with capsys.disabled():
        median, best = statistics.median(milliseconds), min(milliseconds)
        print(f"\nlaptop model, 64 tokens: {median:.1f} ms a pass in the browser, median of 31; {best:.1f} ms at best")
