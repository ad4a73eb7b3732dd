"""What a run noticed: said once on stderr, kept in the rows, in no identity, and there however the pixels came."""

from __future__ import annotations

import json
import shutil
import tarfile
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers import TINY, add, caption_shards, encoded, image_folder, picture, tiny_checkpoint

import clipeval
from clipeval import config, models

SHORT = TINY | {"text_cfg": TINY["text_cfg"] | {"context_length": 9}}


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPEVAL_CACHE", str(tmp_path / "cache"))
    tiny_checkpoint(tmp_path / "a.pt", 0)
    tiny_checkpoint(tmp_path / "b.pt", 1)
    image_folder(tmp_path / "colours", per_class={"train": 3, "test": 2})
    picture(1).convert("RGBA").save(tmp_path / "colours" / "test" / "red" / "alpha.png")
    return tmp_path


@pytest.fixture
def run(zoo, command):
    """Code, rows and lines of stderr of a run with the checkpoints a and b."""

    def call(*words, out="out", given=("a.pt", "b.pt")):
        chosen = [word for name in given for word in ("-m", str(zoo / name))]
        code, _, err = partial(command, "clipeval")("run", *chosen, *words, "-o", zoo / out, "--workers", "0")
        return code, clipeval.read_results(zoo / out), err.splitlines()

    return call


def remarks(rows, **chosen):
    """The remarks of the rows with these values, each set once."""
    for name, value in chosen.items():
        rows = rows[rows[name] == value]
    found = {tuple(json.loads(notes).get("remarks", ())) if isinstance(notes, str) else () for notes in rows["notes"]}
    assert len(found) == 1
    return list(found.pop())


ALPHA = "1 of 14 images have transparency, which is dropped: what it covers is seen as the file holds it"


def test_a_remark_is_said_once_and_kept_in_every_row(zoo, run):
    words = ("-d", f"folder:{zoo}/colours", "-t", "classification")
    for out in ("out", "from the cache"):
        code, rows, err = run(*words, out=out)
        assert code == 0
        assert len(rows) == 2 * 3
        assert err.count(f"colours: {ALPHA}") == 1
        assert sum(ALPHA in line for line in err) == 1
        assert remarks(rows) == [ALPHA]
    (zoo / "colours" / "test" / "red" / "more.heic").write_text("")
    code, again, err = run(*words)
    assert code == 0
    assert [row["started_at"] for row in again.to_dict("records")] == [
        row["started_at"] for row in clipeval.read_results(zoo / "out").to_dict("records")
    ], "a remark measures nothing again"
    assert any("1 files are not read because of their suffix (.heic: 1)" in line for line in err)


def test_scored_images_that_are_trained_on_are_counted(zoo, run):
    for source in ("train/green/000.png", "train/red/001.png"):
        shutil.copy(zoo / "colours" / source, zoo / "colours" / "test" / "blue" / source.replace("/", "-"))
    shutil.copy(zoo / "colours/test/red/alpha.png", zoo / "colours/train/red/alpha.png")
    code, rows, err = run("-d", f"folder:{zoo}/colours", "-t", "probe", "-t", "classification", "--shots", "full")
    assert code == 0
    both = "3 of 16 images of the split 'test' are in the split 'train' too"
    assert err.count(f"colours: {both}") == 1
    assert both in remarks(rows, task="linear_probe")
    assert remarks(rows, task="zeroshot_classification") == [ALPHA.replace("14", "16")]
    assert f"split 'train': {ALPHA.replace('14', '20')}" in remarks(rows, task="linear_probe")


def test_captions_beyond_the_context_are_counted(zoo, run):
    """Captions of helpers have 10 to 12 tokens with both ends, by open_clip's own tokenizer."""
    import open_clip

    caption_shards(zoo / "pairs", images=23)
    tiny_checkpoint(zoo / "short.pt", 2, SHORT)
    tiny_checkpoint(zoo / "short too.pt", 3, SHORT)
    encode = open_clip.tokenizer.SimpleTokenizer().encode
    entry = config.DatasetEntry(spec=f"wds:{zoo}/pairs")
    captions = [text for texts in clipeval.datasets.open_dataset("pairs", entry).captions for text in texts]
    cut = sum(len(encode(text)) + 2 > 9 for text in captions)
    assert cut > 0
    sentence = f"{cut} of {len(captions)} captions were cut at 9 tokens, the context length"
    given = ("a.pt", "short.pt", "short too.pt")
    code, rows, err = run("-d", f"wds:{zoo}/pairs", "-t", "retrieval", given=given)
    assert code == 0
    assert err.count(f"pairs: {sentence}") == 1
    for name in given:
        assert (sentence in remarks(rows, model=str(zoo / name))) == (name != "a.pt")


def encoder_of(path):
    [spec] = models.resolve([str(path)], config.packaged())
    return models.load(spec, device="cpu", precision="fp32", offline=True)


def test_cut_texts_are_those_of_more_tokens(zoo):
    import open_clip

    encode = open_clip.tokenizer.SimpleTokenizer().encode
    tiny_checkpoint(zoo / "short.pt", 2, SHORT)
    encoder = encoder_of(zoo / "short.pt")
    words = ["", "a", "cat " * 6, "cat " * 7, "cat " * 8, "cat " * 80, "é" * 3, "é ü " * 4, "&amp;" * 7, "&amp; " * 9]
    words += ["日本語", "ab" * 3, "supercalifragilistic", "!" * 7, "! " * 8, "x y z 1 2 3 4", "x y z 1 2 3 4 5"]
    assert encoder.are_cut(words).tolist() == [len(encode(text)) + 2 > 9 for text in words]
    assert encoder.are_cut([]).tolist() == []
    assert not encoder_of(zoo / "a.pt").are_cut(words[:5]).any()


def test_a_collapsed_checkpoint_is_named(zoo, run):
    content = torch.load(zoo / "b.pt", weights_only=True)
    content["state_dict"]["visual.ln_post.weight"].zero_()  # what is left of every image is the bias
    content["state_dict"]["visual.ln_post.bias"] += 0.25
    torch.save(content, zoo / "b.pt")
    code, rows, err = run("-d", f"folder:{zoo}/colours", "-t", "classification")
    assert code == 0
    sentence = "the embeddings of all 14 images are equal: the checkpoint tells none apart"
    assert err.count(f"colours: {sentence}") == 1
    assert remarks(rows, model=str(zoo / "a.pt")) == [ALPHA]
    assert remarks(rows, model=str(zoo / "b.pt")) == [ALPHA, sentence]


def test_what_is_said_of_a_checkpoint_is_in_its_rows(zoo, run, monkeypatch):
    from clipeval.models.checkpoint import Checkpoint

    monkeypatch.setattr(Checkpoint, "remarks", property(lambda self: (f"guessed for {Path(self.spec.name).name}",)))
    code, rows, err = run("-d", f"folder:{zoo}/colours", "-t", "classification")
    assert code == 0
    for name in ("a.pt", "b.pt"):
        assert err.count(f"{zoo / name}: guessed for {name}") == 1
        assert remarks(rows, model=str(zoo / name)) == [f"guessed for {name}", ALPHA]


def test_labels_without_names_are_a_skipped_row_that_says_what_to_do(zoo, run):
    (zoo / "nameless" / "test").mkdir(parents=True)
    (zoo / "nameless" / "test" / "nshards.txt").write_text("1")
    with tarfile.open(zoo / "nameless" / "test" / "0.tar", "w") as tar:
        for number in range(6):
            add(tar, f"{number}.png", encoded(picture(number, number)))
            add(tar, f"{number}.cls", str(number % 2).encode())
    spec = f"wds:{zoo}/nameless"
    code, rows, err = run("-d", spec, given=("a.pt",))
    assert code == 0
    assert rows[["dataset", "task", "status"]].to_numpy().tolist() == [
        ["nameless", "zeroshot_classification", "skipped"]
    ]
    assert "classnames.txt" in rows["error"][0]
    assert "-t probe" in rows["error"][0]
    assert any("nameless has no class names: give them in classnames.txt" in line for line in err)


def test_a_set_for_probes_alone_is_skipped_until_a_probe_is_asked_for(zoo, run):
    (zoo / "b.yaml").write_text(f"datasets: {{c: {{spec: 'folder:{zoo}/colours', tasks: [probe]}}}}")
    code, rows, err = run("-c", zoo / "b.yaml", "-d", "c", given=("a.pt",))
    assert (code, rows["status"].tolist(), rows["task"].tolist()) == (0, ["skipped"], ["linear_probe"])
    assert any("linear_probe trains on the data, which has to be asked for: -t probe" in line for line in err)
    code, rows, _ = run("-c", zoo / "b.yaml", "-d", "c", "-t", "probe", "--shots", "full", given=("a.pt",))
    assert (code, set(rows["status"])) == (0, {"ok"})


def test_splits_with_other_class_lists_are_not_trained_on(zoo, run):
    import datasets as hf

    for split, names in (("train", ["x", "y"]), ("test", ["y", "x"])):
        kinds = hf.Features({"image": hf.Image(), "label": hf.ClassLabel(names=names)})
        cells = [{"bytes": encoded(picture(k + len(split), k % 2)), "path": None} for k in range(4)]
        hf.Dataset.from_dict({"image": cells, "label": [0, 1] * 2}, kinds).to_parquet(str(zoo / f"{split}.parquet"))
    from clipeval.errors import DataError
    from clipeval.evaluation.shelf import require_same_classes

    opened = [
        clipeval.datasets.open_dataset("d", config.DatasetEntry(spec=f"hf:{zoo / split}.parquet"))
        for split in ("test", "train")
    ]
    with pytest.raises(DataError, match="have different class lists: label 0 is 'y' and 'x'"):
        require_same_classes(*opened)
    require_same_classes(opened[0], opened[0])


@pytest.mark.parametrize(("pad", "end"), [("<pad>", "</s>"), ("</s>", "</s>"), ("<pad>", None)])
def test_tokenizers_of_transformers_tell_cut_texts_too(zoo, pad, end):
    """With an end of its own, with one that also fills up, and without any."""
    from open_clip.tokenizer import HFTokenizer
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate(["<pad>", "</s>", "<unk>", *"abcdefghij"])}
    made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    if end:
        made.post_processor = processors.TemplateProcessing(single=f"$A {end}", special_tokens=[(end, words[end])])
    fast = PreTrainedTokenizerFast(tokenizer_object=made, pad_token=pad, eos_token="</s>", unk_token="<unk>")
    fast.save_pretrained(zoo / "tokenizer")
    encoder = encoder_of(tiny_checkpoint(zoo / "short.pt", 2, SHORT))
    encoder._tokenizer = HFTokenizer(str(zoo / "tokenizer"), context_length=9)
    texts = [" ".join("abcdefghij"[k % 10] for k in range(count)) for count in range(14)]
    assert encoder.are_cut(texts).tolist() == [count + (end is not None) > 9 for count in range(14)]


def test_progress_counts_every_split_by_itself(zoo, run, monkeypatch):
    """86 of 31 images, where the training split was counted into the total of the other."""
    from clipeval.console import RunProgress

    stretches = []
    start, advance = RunProgress.start, RunProgress.advance

    def started(self, label, items):
        stretches.append([label, items, 0])
        start(self, label, items)

    def advanced(self, items, stored):
        stretches[-1][2] += items
        advance(self, items, stored)

    monkeypatch.setattr(RunProgress, "start", started)
    monkeypatch.setattr(RunProgress, "advance", advanced)
    run("-d", f"folder:{zoo}/colours", "-t", "probe", "-t", "classification", "--shots", "full", given=("a.pt",))
    assert all(done == total for _, total, done in stretches)
    assert [(label.rpartition(" ")[2], total) for label, total, _ in stretches[1:]] == [("test", 14), ("train", 19)]
