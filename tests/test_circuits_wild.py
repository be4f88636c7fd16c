"""Natural occurrences of a decision, against a loop in numpy over a model of known logits."""

import dataclasses
import itertools
from pathlib import Path

import jax
import numpy as np
import pytest

from sparse_gpt.circuits.run.samples import FamilySamples, TaskSamples, mixture
from sparse_gpt.circuits.run.task_batch import TaskBatch, rows
from sparse_gpt.circuits.run.wild import LEAST, LONGEST, SHARE, in_pairs, natural_samples, one_decision
from sparse_gpt.circuits.search.fresh import CHECKS, FRESH
from sparse_gpt.model import build
from sparse_gpt.workdir import NATURAL_PAIRS, Workdir
from tests import circuits_model

CONFIG = circuits_model.config()
CONFIG = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, context=96))
PARAMS = circuits_model.params(CONFIG)
TOKENS = (3, 7)


def windows(seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    few = rng.choice([3, 7, 1], (3, 4, 90), p=[0.3, 0.3, 0.4]).astype(np.int32)
    few[2] = few[0]  # the same prompts again
    return list(few)


def strongly() -> dict[str, object]:
    """Parameters whose bigram rows decide how much the model gives the two tokens together."""
    params = jax.tree.map(np.array, PARAMS)
    params["bigram"] = params["bigram"] * 0
    params["bigram"][1, list(TOKENS)] = 50.0
    params["bigram"][3, 5] = 50.0
    return params


@pytest.mark.slow
def test_samples_are_the_places_where_the_model_decides_between_the_two() -> None:
    params, model = strongly(), build(CONFIG)
    found = natural_samples(model, params, windows(), TOKENS)
    assert found is not None
    written: dict[tuple[int, ...], int] = {}
    for row in np.concatenate(windows()):
        for t in range(LEAST - 1, len(row) - 1):
            if row[t + 1] in TOKENS:
                written.setdefault(tuple(row[max(0, t + 1 - LONGEST) : t + 1].tolist()), int(row[t + 1]))
    padded = np.array([prompt + (0,) * (LONGEST - len(prompt)) for prompt in written])
    ends = np.array([len(prompt) - 1 for prompt in written])
    logits = np.asarray(model.apply({"params": params}, padded), np.float64)[np.arange(len(ends)), ends]
    share = np.exp(logits - logits.max(-1, keepdims=True))
    share = share[:, list(TOKENS)].sum(-1) / share.sum(-1)
    expected = {prompt: came for (prompt, came), each in zip(written.items(), share, strict=True) if each >= SHARE}
    prompts = [tuple(row[: at + 1].tolist()) for row, at in zip(found.tokens, found.positions, strict=True)]
    assert dict(zip(prompts, found.answer.tolist(), strict=True)) == expected
    assert 20 < len(prompts) < 3 * 4 * 90
    assert {prompt[-1] for prompt in prompts} >= {1}
    np.testing.assert_array_equal(found.foil, np.where(found.answer == 3, 7, 3))
    assert max(map(len, prompts)) == LONGEST
    few = natural_samples(model, params, windows(), TOKENS, most=5)
    assert few is not None
    np.testing.assert_array_equal(few.tokens, found.tokens[:5])


def test_where_nothing_is_decided_there_are_no_samples() -> None:
    assert natural_samples(build(CONFIG), strongly(), windows(), (20, 21)) is None


@pytest.mark.parametrize(
    ("answers", "foils", "expected"), [([3, 7], [7, 3], (3, 7)), ([3, 7, 4], [7, 3, 7], None), ([9], [2], (2, 9))]
)
def test_tasks_that_copy_decide_between_many_tokens(
    answers: list[int], foils: list[int], expected: tuple[int, int] | None
) -> None:
    zeros = np.zeros((len(answers), 4), np.int32)
    assert one_decision(TaskBatch(zeros, zeros[:, 0], np.array(answers), np.array(foils))) == expected


def test_pairs_of_different_answers_and_like_length() -> None:
    rng = np.random.default_rng(0)
    positions = rng.integers(LEAST, LONGEST, 30).astype(np.int32)
    answer = np.array([3] * 20 + [7] * 10, np.int32)
    batch = TaskBatch(np.arange(30 * 64).reshape(30, 64).astype(np.int32), positions, answer, 10 - answer)
    pairs = in_pairs(batch, seed=1)
    assert pairs is not None
    sides = np.asarray(pairs.answer).reshape(-1, 2)
    assert np.all(np.sort(sides, axis=1) == [3, 7])
    assert len(sides) == 10
    assert 0 < np.sum(sides[:, 0] == 3) < 10  # the place in the pair tells nothing
    assert len(np.unique(pairs.tokens[:, 0])) == 20  # none twice
    lengths = np.asarray(pairs.positions).reshape(-1, 2)
    shorter = lengths[np.argsort(lengths[:, 0], kind="stable")]
    assert np.corrcoef(shorter.T)[0, 1] > 0.7
    assert in_pairs(TaskBatch(*(array[:20] for array in batch[:4])), seed=1) is None  # one answer
    again = in_pairs(batch, seed=1)
    assert again is not None
    np.testing.assert_array_equal(again.tokens, pairs.tokens)


def _asked(target: float, text: int, monkeypatch: pytest.MonkeyPatch, name: str = "natural") -> TaskSamples:
    """Samples that ask for natural text of so many pairs, after `Workdir.with_natural`."""
    config = dataclasses.replace(CONFIG, prune=dataclasses.replace(CONFIG.prune, target_loss=target))
    run = Workdir(Path("nowhere"), config)
    monkeypatch.setitem(run.__dict__, "params", PARAMS)
    written = circuits_model.batch(2 * text, seed=9)
    answer = np.tile(np.array(TOKENS, np.int32), text)
    written = written._replace(answer=answer, foil=sum(TOKENS) - answer)
    judged = circuits_model.batch(6, seed=8)
    monkeypatch.setattr(
        Workdir, "_occurrences", lambda self, train, batches, most, split: written if split == "train" else judged
    )
    main = FamilySamples(*(circuits_model.batch(count, seed=i) for i, count in enumerate((80, 24, 30))))
    return run.with_natural(TaskSamples(*main, families={"main": main}, natural=name))


@pytest.mark.slow
def test_a_search_on_natural_text_has_one_more_family(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = _asked(10.0, 60, monkeypatch, name="")
    assert list(plain.families) == ["main"]
    assert plain.wild is not None
    assert len(plain.wild.positions) == 6
    samples = _asked(10.0, 60, monkeypatch)
    assert samples.parts == ("main", "natural")
    natural = samples.families["natural"]
    assert [len(part.positions) for part in natural] == [80, 24, 30]  # as many as of the other family
    prompts = [{tuple(row[: at + 1]) for row, at in zip(part.tokens, part.positions, strict=True)} for part in natural]
    assert all(len(one & other) == 0 for one, other in zip(prompts, prompts[1:] + prompts[:1], strict=True))
    assert np.all(np.asarray(natural.train.answer).reshape(-1, 2).sum(axis=1) == sum(TOKENS))
    assert len(samples.train.positions) == 160
    assert set(np.unique(np.asarray(samples.train.task))) == {0, 1}


@pytest.mark.parametrize("long", [0, 5, 100])
def test_checks_on_fresh_samples_have_text_of_their_own(long: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though text has fewer pairs than there are places, no pair is both the selection's and a check's, or two's; also
    where the longest ones, so many in a hundred, are left out."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, circuits_model.VOCABULARY, (200, LONGEST)).astype(np.int32)
    ends = np.where(np.arange(200) < 2 * long, LONGEST - 1, 2 * LEAST)[rng.permutation(200)].astype(np.int32)
    answer = np.tile(np.array(TOKENS, np.int32), 100)
    written = TaskBatch(tokens, ends, answer, sum(TOKENS) - answer)
    monkeypatch.setattr(Workdir, "_occurrences", lambda *given: written)
    families = {
        name: FamilySamples(*(circuits_model.batch(count, seed=i) for i, count in enumerate((3600, 24, 30), start)))
        for start, name in enumerate(("main", "other"))
    }
    samples = mixture(TaskSamples(*families["main"], families=families), families)
    samples = dataclasses.replace(samples, names=("toy",), natural="natural")
    family = Workdir(Path("nowhere"), CONFIG)._natural_family(samples)
    mixed = mixture(samples, {**families, "natural": family})
    ends = [0, *(mixed.further + FRESH * i for i in range(CHECKS + 1))]
    parts = [rows(mixed.train, slice(*each)) for each in itertools.pairwise(ends)]
    found = [{tuple(row) for row in part.tokens[part.task == 2].tolist()} for part in parts]
    assert min(map(len, found)) > 10
    assert sum(map(len, found)) == len(set().union(*found))


@pytest.mark.slow
def test_natural_text_is_left_out_where_it_is_scarce_or_too_hard(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(_asked(10.0, NATURAL_PAIRS - 1, monkeypatch).families) == ["main"]
    assert "family natural is left out: text has too few of its decisions" in capsys.readouterr().out
    assert list(_asked(1e-3, 60, monkeypatch).families) == ["main"]
    assert "family natural is left out: the model has" in capsys.readouterr().out


def test_why_there_is_no_natural_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = FamilySamples(*(circuits_model.batch(count, seed=i) for i, count in enumerate((16, 8, 8))))
    answer = np.tile(np.array(TOKENS, np.int32), 8)
    decided = main.train._replace(answer=answer, foil=sum(TOKENS) - answer)
    copied = decided._replace(answer=np.arange(16, dtype=np.int32), foil=np.arange(16, dtype=np.int32)[::-1])
    run = Workdir(tmp_path, CONFIG)
    for train, reason in (
        (copied, "its samples do not all decide between the same two tokens"),
        (decided, f"{tmp_path / 'corpus'}: "),  # no corpus
    ):
        samples = TaskSamples(train, *main[1:], names=("toy",), families={"main": main}, natural="natural")
        found = run.with_natural(samples)
        assert (list(found.families), found.wild) == (["main"], None)
        assert capsys.readouterr().out.startswith(f"task toy: family natural is left out: {reason}")
