"""Labels that contradict themselves are an error that shows both readings; agreement is silent."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts import refuses

from dfl.data import Folder, Table
from dfl.data.sources import ForensicHub, Only, Source, Spai
from dfl.data.sources.contradictions import Contradiction
from dfl.errors import UserError
from dfl.tools.sources import NamedSource, rows_of


def table(root: Path, text: str, **given: object) -> Table:
    (root / "t.csv").write_text(text)
    return Table(str(root / "t.csv"), **given)


def labels(source: Source) -> list[int]:
    return list(source.load("test")["label"].to_pylist())


@pytest.mark.parametrize(
    ("text", "columns", "said"),
    [
        ("path,label,label_str\na,1,real\nb,0,fake\n", {}, "'label' makes a fake, and column 'label_str' says 'real'"),
        ("path,label,label_str\na,1,real\nb,1,real\n", {}, "2 of 2 images.*columns: {label: label_str}"),
        ("path,label,class\na,1,Genuine\nb,0,Deep-Fake\nc,0,AI generated\n", {}, "column 'class' says 'Genuine'"),
        ("path,label,truth\na,0,real\nb,1,fake\nc,1,real\n", {}, "1 of 3 images.; mend these rows"),
        ("path,label,generator\na,1,real\nb,0,sdxl\nc,0,dalle\n", {}, "column 'generator' says 'real'"),
        ("path,label,is_real\na,1,True\nb,0,False\n", {}, "column 'is_real' says 'True'"),
        (
            "path,is_real\na,True\nb,False\n",
            {"label": "is_real"},
            "the name of the column 'is_real' says that 1 is real",
        ),
        ("path,isGenuine\na,1\nb,0\n", {"label": "isGenuine"}, "says that 1 is real; set label_of_fake: 0 if so, or"),
        ("path,label\nx/real/a,1\nx/fake/b,0\n", {}, "its folder says 'real' .2 of 2.*label_of_fake: 0 .*_fake: 1 if"),
        ("path,label\nffhq/0_real/a,1\ngan/1_FAKE/b,0\n", {}, "says '0_real'"),
        ("path,label\nA/real/a,0\nA/fake/b,1\nB/real/a,1\nB/fake/b,0\n", {}, "2 of 4 images.; mend these rows"),
        ("path,label\nx\\nature\\a,1\nx\\ai\\b,0\n", {}, "says 'nature'"),
        ("path,label\nreal/a,fake\nfake/b,real\n", {}, "label_of_fake: real .*label_of_fake: fake if"),
        ("path,label\nreal_1.png,1\nfake_1.png,0\n", {}, "the name of its file says 'real'"),
        ("path,label,class_label\na,1,0\nb,0,2\n", {}, "class_label says 'real'"),
        ("path,label\n12_real.png,1\nimg7-fake.png,0\n", {}, "the name of its file says 'real'"),
        ("path,label,Label\na,1,0\nb,0,1\n", {}, "column 'Label' says '0'.*columns: {label: Label}"),
        ("path,label,target\na,1,0.0\nb,0,1.0\n", {}, "column 'target' says '0.0'"),
        ("path,label,Class\na,1,0\nb,0,1\nc,0,\n", {}, "column 'Class' says '0'"),
        ("path,label,isFake\na,1,no\nb,0,Yes\n", {}, "column 'isFake' says 'no'"),
        ("path,label,is_fake\na,1,F\nb,0,T\n", {}, "column 'is_fake' says 'F'"),
        ("path,label,real\na,1,1.0\nb,0,0.0\n", {}, "column 'real' says '1.0'"),
        ("path,label,unedited\na,1,y\nb,0,n\n", {}, "column 'unedited' says 'y'"),
        ("path,not_fake\na,1\nb,0\n", {"label": "not_fake"}, "'not_fake' says that 1 is real"),
        ("path,nonfake\na,1\nb,0\n", {"label": "nonfake"}, "'nonfake' says that 1 is real"),
        ("path,liveness\na,1\nb,0\n", {"label": "liveness"}, "'liveness' says that 1 is real"),
        ("path,label,generator\na,1,\nb,0,sdxl\nc,1,None\n", {}, "'generator' says 'nothing' .3 of 3.*set label_of"),
        ("path,label,gt\na,1,\nb,0,m.png\n", {}, "column 'mask' says 'nothing'"),
    ],
)
def test_what_speaks_against_a_label_is_an_error(tmp_path: Path, text: str, columns: dict[str, str], said: str) -> None:
    with pytest.raises(Contradiction, match=said):
        table(tmp_path, text, columns=columns).load("test")
    values = [line.split(",")[1] for line in text.splitlines()[1:]]
    for fake in set(values):  # the user's word goes before, whichever way
        source = table(tmp_path, text, columns=columns, label_of_fake=fake)
        assert labels(source) == [int(value == fake) for value in values]


@pytest.mark.parametrize(
    "text",
    [
        "path,label,label_str\na,0,real\nb,1,fake\nc,1,\n",
        "path,label\nx/real/a,0\nx/fake/b,1\n",
        "path,label\nreal_vs_fake/real-vs-fake/a,1\nreal_vs_fake/real-vs-fake/b,0\n",
        "path,label\n/data/real/x/a,1\n/data/real/y/b,0\n",  # all share it
        "path,label\noriginal/a,1\noriginal/b,0\nc23/a,1\nc23/b,0\n",  # compression, not class
        "path,label\nnature/a,1\nnature/b,0\nai/a,1\nai/b,0\n",  # topics
        "path,label\nfake/original/a,1\nfake/small/b,1\nreal/original/c,0\n",
        "path,label\n/home/ai/a,0\n/home/ai/b,1\n/mnt/set/c,0\n",
        "path,label\nreal-esrgan/a,1\nffhq/b,0\n",
        "path,label\nreal_1.png,0\nreal_1_to_fake.png,1\n",
        "path,label,audio_label\na,1,real\nb,1,fake\nc,0,real\n",  # labels of parts
        "path,label,edited\na,0,0\nb,1,0\nc,1,1\n",
        "path,label,not_real\na,0,0\nb,1,1\n",
        "path,label,ai_or_not\na,0,0\nb,1,1\n",
        "path,label,class\na,1,0\nb,0,1\nc,0,2\n",  # numbers of what is seen
        "path,label,target\na,1,0\nb,0,1\nc,1,1\n",  # of something else
        "path,label,generator\na,0,coco\nb,1,\nc,1,sdxl\n",
        "path,label,mask\na,0,m.png\nb,1,m.png\n",
        "path,label,fake_pred\na,0,1\nb,1,0\n",
        "path,label\n1_real.png,1\n2_real.png,0\n3_fake.png,0\n",
        "path,label,caption\na,1,real\nb,0,fake\n",  # free text
        "path,label,verdict,score,class\na,1,real,.1,real\nb,0,fake,.9,fake\n",  # a detector's answers
    ],
)
def test_agreement_and_what_is_no_evidence_are_silent(tmp_path: Path, text: str) -> None:
    assert labels(table(tmp_path, text)) == [int(line.split(",")[1]) for line in text.splitlines()[1:]]


def test_numbers_are_flags_in_parquet_too(tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    for name, said in (("is_real", [1.0, 0.0, None]), ("target", [0, 1, None]), ("not_real", [False, True, None])):
        pq.write_table(pa.table({"path": ["a", "b", "c"], "label": [1, 0, 0], name: said}), file)
        with pytest.raises(Contradiction, match=f"column '{name}' says"):
            Table(str(file)).load("test")
        pq.write_table(pa.table({"path": ["a", "b", "c"], "label": [0, 1, 0], name: said}), file)
        assert labels(Table(str(file))) == [0, 1, 0]


def test_the_column_that_the_user_names_is_not_held_to_the_one_passed_over(tmp_path: Path) -> None:
    text = "path,label,label_str\na,1,real\nb,0,fake\n"
    assert labels(table(tmp_path, text, columns={"label": "label_str"})) == [0, 1]


def test_a_model_that_only_real_images_have_may_be_a_camera(tmp_path: Path) -> None:
    source = table(tmp_path, "path,label,model\na,0,Pixel 4\nb,1,\n")
    with pytest.warns(UserWarning, match="'model' is read as the generator, and names one in rows labelled real alone"):
        assert labels(source) == [0, 1]


def test_true_and_false_are_told_apart_by_the_user(tmp_path: Path) -> None:
    text = "path,is_real\na,True\nb,False\n"
    assert labels(table(tmp_path, text, columns={"label": "is_real"}, label_of_fake="false")) == [0, 1]
    assert labels(table(tmp_path, text.replace("is_real", "is_fake"))) == [1, 0]


def test_every_source_is_held_to_its_folders(tmp_path: Path) -> None:
    for name in ("real/a.png", "fake/b.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    listed = [{"path": "real/a.png", "label": 1}, {"path": "fake/b.png", "label": 0}]
    (tmp_path / "l.json").write_text(json.dumps(listed))
    (tmp_path / "s.csv").write_text("image,class,split\nreal/a.png,1,test\nfake/b.png,0,test\n")
    for source in (ForensicHub(str(tmp_path / "l.json")), Spai(str(tmp_path / "s.csv"))):
        with pytest.raises(Contradiction, match="its folder says 'real' .2 of 2 images.; mend the list"):
            source.load("test")
    told = table(tmp_path, "path,label,generator\nx/real/a,1,g\nx/fake/b,0,\n", label_of_fake=1)
    assert labels(Only(told)) == [1, 0]


def test_a_contradiction_in_one_split_is_not_passed_over(tmp_path: Path) -> None:
    source = table(tmp_path, "path,label,split\nx/real/a,0,train\nx/fake/b,1,train\nx/real/c,1,test\nx/fake/d,0,test\n")
    with pytest.raises(Contradiction):
        rows_of(NamedSource("set", source))


def test_names_that_the_user_gives_go_before_ours(tmp_path: Path) -> None:
    for name in ("real/a.png", "original/b.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    assert sorted(labels(Folder(str(tmp_path), fake=["Original"]))) == [0, 1]
    with pytest.raises(UserError, match="'original' is named among the real and among the fake"):
        Folder(str(tmp_path), fake=["original"], real=["original"]).load("test")


@pytest.mark.parametrize(
    ("names", "values", "wanted"),
    [
        (["real", "fake"], [0, 1], [0, 1]),
        (["real", "full_synthetic", "tampered"], [0, 1, 2], [0, 1, 1]),
        (["real", "sdxl"], [0, 1], [0, 1]),
        (["0", "1"], [1, 0], [1, 0]),
        (["FAKE", "REAL"], [0, 1], None),
        (["sdxl", "real"], [0, 1], None),
    ],
)
def test_names_in_the_schema(tmp_path: Path, names: list[str], values: list[int], wanted: list[int] | None) -> None:
    features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    content = pa.table({"path": ["a", "b", "c"][: len(values)], "label": values})
    content = content.replace_schema_metadata({b"huggingface": json.dumps(features).encode()})
    pq.write_table(content, tmp_path / "t.parquet")
    file = str(tmp_path / "t.parquet")
    if wanted is not None:
        assert labels(Table(file)) == wanted
        return
    with pytest.raises(Contradiction, match="the file's schema calls . '(FAKE|real)'; set label_of_fake: 0 if so, or"):
        Table(file).load("test")
    assert labels(Table(file, label_of_fake=0)) == labels(Table(file, label_of_fake=names[0])) == [1, 0]


def test_several_values_may_mean_fake(tmp_path: Path) -> None:
    text = "path,label\na,real\nb,sdxl\nc,dalle\n"
    refuses(
        table(tmp_path, text), "test", "cannot tell real from fake by the labels dalle, real, sdxl; set label_of_fake"
    )
    assert labels(table(tmp_path, text, label_of_fake=["sdxl", "dalle"])) == [0, 1, 1]


def test_a_large_table_is_looked_at_evenly(tmp_path: Path) -> None:
    n = 40_000  # the last quarter is of another list, the other way round
    label = [i % 2 if i < 3 * n // 4 else 1 - i % 2 for i in range(n)]
    paths = [f"{'A' if i < 3 * n // 4 else 'B'}/{('real', 'fake')[i % 2]}/{i}.png" for i in range(n)]
    pq.write_table(pa.table({"path": paths, "label": label}), tmp_path / "t.parquet")
    with pytest.raises(Contradiction, match="makes .*/B/"):
        Table(str(tmp_path / "t.parquet")).load("test")
