"""Run by test_contract in two processes: test every small detector on two ranks, and write the tables."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from test_contract import PARTS, SMALL, build, data, trainer

from dfl.data import Folder

faces, out = Path(sys.argv[1]), Path(sys.argv[2])
tables = {}
for name in SMALL:
    for limit in (12, 11):
        detector = build(name)
        run = trainer(out, devices=2, strategy="ddp")
        test = {"a": Folder(str(faces), fractions=PARTS, limit=limit)}
        run.test(detector, data(faces, test=test), verbose=False)
        tables[f"{name} {limit}"] = detector.results["test"]
if run.is_global_zero:
    (out / "two.json").write_text(json.dumps(tables))
