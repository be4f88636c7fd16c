"""The experiments of launch.reproduce by name: what each proves, what it costs, and where it is."""

import importlib
from collections.abc import Callable, Mapping

from sparse_gpt.experiments.harness import Check, Experiment


def _later(module: str, function: str, **options: str) -> Callable[..., list[Check]]:
    """A function of sparse_gpt.experiments.MODULE, imported when it is called: the table is shown, and names are
    checked, without JAX."""

    def run(*args: object) -> list[Check]:
        found: list[Check] = getattr(importlib.import_module(f"sparse_gpt.experiments.{module}"), function)(
            *args, **options
        )
        return found

    return run


EXPERIMENTS: Mapping[str, Experiment] = {
    "sparse-vs-dense": Experiment(
        "a sparse model's circuits are many times smaller than those of a dense model with equal pretraining loss",
        "90 min on 2 cores",
        _later("sparse_vs_dense", "sparse_vs_dense"),
    ),
    "sparse-vs-dense-laptop": Experiment(
        "the same for the stored laptop model, the stored dense one and the one with half of the nonzeros",
        "1 to 3 h on 2 cores",
        _later("sparse_vs_dense", "sparse_vs_dense_laptop"),
    ),
    "frontier": Experiment(
        "pretraining loss against circuit size over widths and numbers of nonzeros; kurtosis of the residual stream",
        "2 h on 2 cores",
        _later("frontier", "frontier"),
    ),
    "bridge": Experiment(
        "bridges make a dense and a sparse model one: hybrids, steering of the dense model, circuits transported",
        "90 min on 2 cores",
        _later("bridges", "bridge"),
    ),
    "bridge-quickstart": Experiment(
        "the same with preset bridge_quickstart",
        "40 min on 2 cores",
        _later("bridges", "bridge", preset="bridge_quickstart", sparse_preset="quickstart"),
    ),
    "laptop-circuits": Experiment(
        "circuits of all tasks that the stored laptop model solves, and their sizes before and after refinement",
        "2 h on 2 cores",
        _later("laptop_circuits", "laptop_circuits"),
    ),
    "predictions": Experiment(
        "what the readings of six complete circuits of the laptop model say of unusual inputs, against the full model",
        "100 min on 2 cores",
        _later("predictions", "predictions"),
    ),
    "attribution-vs-learned": Experiment(
        "the mask search's circuits of one model are smaller, at every loss, than those of rankings by attribution",
        "10 min a task",
        _later("rankings", "attribution_vs_learned"),
        of_a_model=True,
    ),
    "path-vs-paper": Experiment(
        "the path search leaves half the edges of the paper's search, and no more than any ranking; three seeds",
        "half an hour a task",
        _later("searches", "path_vs_paper"),
        of_a_model=True,
    ),
    "complete-circuits": Experiment(
        "circuits of one model, searched on four template families, hold on novel ones and on natural text",
        "5 to 30 min a task",
        _later("complete_circuits", "complete_circuits"),
        of_a_model=True,
    ),
    "necessity": Experiment(
        "task loss of one model without its first nodes, as the mask search and other rankings order them",
        "10 min a task",
        _later("rankings", "necessity"),
        of_a_model=True,
    ),
    "hashes": Experiment(
        "corpora of two presets have the same bytes everywhere, a model of preset tiny on machines of its kind",
        "2 min on 2 cores",
        _later("hashes", "check_hashes"),
    ),
    "quickstart": Experiment(
        "a small sparse model learns the quote task, and its circuit is small, sufficient and necessary (3 seeds)",
        "30 min on 2 cores",
        _later("quickstart", "quickstart"),
    ),
    "recipes": Experiment(
        "a recipe reaches openai_reference's loss at quickstart's size in half the time; recipes that lose, too",
        "90 min on 2 cores",
        _later("recipes", "recipes", size="quickstart"),
    ),
    "recipes-laptop": Experiment(
        "the same at the size of preset laptop",
        "25 h on 2 cores",
        _later("recipes", "recipes", size="laptop"),
    ),
    "recipes-tiny": Experiment(
        "the same at the size of preset tiny, which shows that it runs and proves nothing",
        "3 min on 2 cores",
        _later("recipes", "recipes", size="tiny"),
    ),
    "training-changes": Experiment(
        "a change that no recipe has makes quickstart's 2.62 of half of its steps; those that do not, too",
        "1 to 2 h on 2 cores",
        _later("training_changes", "training_changes"),
    ),
    "resume-exactness": Experiment(
        "a run that is killed and resumed ends with the same bits, metrics included",
        "2 min on 2 cores",
        _later("killed_runs", "resume_exactness"),
    ),
    "scale-equality": Experiment(
        "a mesh of eight devices trains what one device trains", "3 min on 2 cores", _later("meshes", "scale_equality")
    ),
    "torture": Experiment(
        "50 kills at random moments (SIGKILL, SIGTERM, SIGHUP, SIGUSR1) change nothing",
        "15 min on 2 cores",
        _later("killed_runs", "torture"),
    ),
}
