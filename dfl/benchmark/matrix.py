"""``dfl matrix``: train on each generator, test on all of them: a benchmark of a sweep config, in one command.

    dfl matrix --config sweep.yaml                          what is done already is not repeated
    dfl matrix --config sweep.yaml --trainer.max_epochs 3   other options are those of fit and test

A sweep names a run's config and the domains, either the generators of one source or a source for each:

    config: patches_c.yaml          # or a list, each beats those before it
    source: {class_path: Dolos, init_args: {root: data/dolos}}
    generators: [repaint-p2-9k, ldm, lama, pluralistic]       # by default all that the source trains on
    # domains: {splice: {class_path: Table, ...}, inpaint: {class_path: Table, ...}}      instead of these two
    # test: {elsewhere: {class_path: CocoGlide, ...}}         domains that are only tested on
    reals: false                    # whether real images are trained on; validation and test keep them
    leave_one_out: true             # and train on all domains but one, for each
    metric: mask_iou                # or a list; by default what chooses the best checkpoint

Tables and page are those of ``dfl benchmark``. See docs/domain_matrix.md.
"""

import dataclasses
from typing import Any

from dfl.benchmark import work
from dfl.benchmark.sweeps import adopt, read
from dfl.benchmark.verb import split
from dfl.cli.verbs import call

#: Options of the matrix itself; all others are those of ``fit`` and ``test``.
OWN = (
    *("output", "metric", "leave_one_out", "name", "root", "seed_everything"),
    *("jobs", "slurm", "only", "seed"),
)
WHAT = "Train on each domain, test on all, and write tables and a page; see the top of this help."


def main(words: list[str]) -> Any:
    """Run the verb, from the words after ``dfl matrix``; return the content of ``benchmark.json``.

    Raises:
        UserError: For whatever the user can mend.
    """
    own, others = split(words, OWN, "matrix", __doc__ or "")

    def run(
        sweep: str,
        output: str | None = None,
        metric: str | None = None,
        leave_one_out: bool | None = None,
        name: str | None = None,
        root: str = ".",
        seed_everything: int | None = None,
        jobs: int = 1,
        slurm: str | None = None,
        only: str | None = None,
        seed: int = 0,
    ) -> Any:
        """Run a sweep.

        Args:
            sweep: The sweep config.
            output: Folder of predictions, tables and page; by default ``lightning_logs/NAME`` under the root.
            metric: What to show first, such as ``auroc`` or ``mask_iou``; several with commas between them.
            leave_one_out: Whether to train on all domains but one, too, for each.
            name: Beginning of the names of the runs; by default that of the sweep config.
            root: Folder that holds ``checkpoints/`` and ``lightning_logs/``.
            seed_everything: Seed of the trainings.
            jobs: Runs at once; each has a GPU of its own, where there are any.
            slurm: Settings of a cluster's jobs, such as ``partition=gpu,time=600,cpus_per_task=8``.
            only: One run, such as ``ldm/0``, and no tables.
            seed: Seed of the resamples.
        """
        spec = read(sweep, output, root, name, metric, leave_one_out, seed_everything)
        spec.runs = [dataclasses.replace(one, options=tuple(others)) for one in spec.runs]
        adopt(spec)
        return work.run(spec, (), jobs, slurm, only, seed, ["matrix", *words])

    first = ("sweep", "1", "The sweep config, with or without --config before it.")
    return call(run, own, "dfl matrix", WHAT, first)
