"""Batches: every sample where it belongs for any number of ranks and workers, bad ones replaced and counted."""

import os
import pickle
import signal
from collections import Counter
from functools import partial

import numpy as np
import open_clip
import pytest
import torch
from shard_files import image, sound, write
from tiny_run import tiny_config

from clipeval.config import DatasetEntry
from clipeval.datasets import open_dataset
from clipeval.datasets.adapters import icons
from clipeval.errors import DataError, UsageError
from clipeval_train import model
from clipeval_train.input import Batch, Corpus, files, loader, open_corpus, order, prefetch, to_input
from clipeval_train.loop import pretrain
from clipeval_train.model import resolve

CPU = torch.device("cpu")


def corpus(reference, workers=0, **changes) -> Corpus:
    """Of a run over one source, batches of 12 unless told."""
    settings = {"data": [{"source": "s", "shards": str(reference)}], "batch_size": 12, "workers": workers} | changes
    config = tiny_config("out", **settings)
    return open_corpus(config, resolve(config.model, "tiny"))


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Blocks of 8 batches and jobs of 5 samples, so that tests cross their borders."""
    monkeypatch.setattr(order, "_BLOCK", 1)
    monkeypatch.setattr(loader, "_JOB", 5)


def joined(batches: list[Batch]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return tuple(torch.cat([getattr(batch, name) for batch in batches]) for name in ("images", "tokens", "keys"))


def assert_equal(first, second):
    for one, two in zip(first, second, strict=True):
        assert torch.equal(one, two)


def test_every_world_size_and_worker_count_sees_the_same_stream(tmp_path):
    reference = sound(tmp_path, [31, 40, 7, 33])
    total, batch = 111, 12
    stop = 3 * total + 3  # the last batch has 12, and 3 passes end inside batches
    whole = joined(list(corpus(reference).batches(0, stop, batch)))
    assert len(whole[2]) == stop
    assert (np.sort(whole[2][: 3 * total].reshape(3, total)) == np.arange(total)).all()
    for first in range(0, stop, batch):
        assert len(set(whole[2][first : first + batch].tolist())) == batch
    for world_size in (1, 2, 3):
        for workers in (0, 2):
            data = corpus(reference, workers)
            ranks = [list(data.batches(0, stop, batch, rank, world_size)) for rank in range(world_size)]
            together = joined([part for parts in zip(*ranks, strict=True) for part in parts])
            assert_equal(together, whole)
            assert (ranks[-1][0].start, ranks[-1][0].stop) == (batch - batch // world_size, batch)


def test_a_rank_fetches_its_own_shards_and_all_read_one_stream(tmp_path, monkeypatch):
    import fsspec

    monkeypatch.setattr("clipeval.datasets.selection.REMOTE_SCHEMES", ("memory",))
    sound(tmp_path, [20] * 12)
    for path in sorted(tmp_path.glob("*.tar")):
        path.with_name(f"{path.stem}_stats.json").write_text('{"successes": 20}')
        fsspec.filesystem("memory").pipe(f"/lanes/{path.name}", path.read_bytes())
        fsspec.filesystem("memory").pipe(f"/lanes/{path.stem}_stats.json", b'{"successes": 20}')
    local = {"source": "s", "shards": f"{tmp_path}/*.tar"}
    whole = joined(list(corpus("", data=[local], lanes=4).batches(0, 480, 12)))
    remote = {"source": "s", "shards": "memory://lanes/{00000..00011}.tar", "counts": "stats"}
    fetched = []
    original = files.fetch
    monkeypatch.setattr(files, "fetch", lambda url, **how: fetched.append(url) or original(url, **how))
    for world_size in (1, 2, 3, 4):
        by_rank, batches = [], []
        for rank in range(world_size):
            monkeypatch.setenv("CLIPEVAL_CACHE", str(tmp_path / f"{world_size}-{rank}"))
            fetched.clear()
            data = corpus("", data=[remote], lanes=4)
            batches.append(list(data.batches(0, 480, 12, rank, world_size)))
            by_rank.append({url for url in fetched if url.endswith(".tar")})
        together = joined([part for parts in zip(*batches, strict=True) for part in parts])
        assert_equal(together, whole)
        assert len(set.union(*by_rank)) == 12
        if world_size in (1, 2, 4):
            assert sum(map(len, by_rank)) == 12, "borders of 4 lanes in 12 equal shards lie between shards"


def test_a_resumed_stream_is_the_uninterrupted_one(tmp_path):
    reference = sound(tmp_path, [31, 40])
    whole = joined(list(corpus(reference).batches(0, 200, 12)))
    for start in (1, 12, 71, 100):
        rest = joined(list(corpus(reference, 2).batches(start, 200, 12)))
        assert_equal(rest, [part[start:] for part in whole])


def test_what_a_sample_is_made_of(tmp_path):
    """Pixels from the file at its place by the crop of its position, and the tokens of its caption."""
    from clipeval_train.input.crops import crop_box, resized_crop, uniform
    from clipeval_train.input.decode import decode_image

    data = corpus(sound(tmp_path, [31, 40]), seed=3)
    batch = next(data.batches(24, 36, 12))
    architecture = resolve(tiny_config("out").model, "tiny")
    for row, key in enumerate(batch.keys.tolist()):
        shard, number = divmod(key, 31) if key < 31 else (1, key - 31)
        pixels = decode_image(image(100 * shard + number))
        box = crop_box(*pixels.shape[1:], uniform(3, 24 + row, 25 + row)[0])
        assert torch.equal(batch.images[row], resized_crop(pixels, box, 16))
        assert torch.equal(batch.tokens[row], model.tokenizer(architecture)([f"sample {shard}-{number}"])[0])


def test_the_models_random_numbers_are_left_alone(tmp_path):
    data = corpus(sound(tmp_path, [60]), workers=1)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    list(data.batches(0, 24, 12))
    assert torch.equal(torch.get_rng_state(), state)


def test_one_of_several_captions_is_chosen_by_position(tmp_path):
    samples = {f"{i:03d}": {"jpg": image(i), "json": b'{"caption": ["one", "two", "three"]}'} for i in range(48)}
    data = corpus(write(tmp_path / "0.tar", samples))
    tokens = joined(list(data.batches(0, 480, 12)))[1]
    counts = Counter(tuple(row) for row in tokens.tolist())
    assert len(counts) == 3
    assert min(counts.values()) > 120  # of 160 expected
    assert torch.equal(joined(list(corpus(tmp_path / "0.tar").batches(0, 480, 12)))[1], tokens)


def test_sources_of_every_kind_mix(tmp_path):
    sound(tmp_path, [50])
    (tmp_path / "p.jpg").write_bytes(image(3))
    (tmp_path / "a.csv").write_text("image,caption\n" + "p.jpg,from a list\n" * 60)
    entries = [
        {"source": "digits", "shards": "builtin:digits", "weight": 2},
        {"source": "tar", "shards": f"{tmp_path}/*.tar"},
        {"source": "list", "shards": f"{tmp_path}/a.csv"},
    ]
    data = corpus("", data=entries)
    assert data.sizes == {"digits": 1442, "tar": 50, "list": 60}
    assert len(data) == 1552
    keys = joined(list(data.batches(0, 1000, 12)))[2].numpy()
    assert np.histogram(keys, [0, 1442, 1492, 1552])[0].tolist() == [500, 250, 250]


def half_bad(folder, good, bad, content=b"no image"):
    """Two shards with so many good and bad samples in alternation."""
    kinds = [*[True] * good, *[False] * bad]
    np.random.default_rng(0).shuffle(kinds)
    for shard in range(2):
        samples = {
            f"{shard}{i:04d}": {"jpg": image(i) if kind else content, "txt": f"{shard} {i}".encode()}
            for i, kind in enumerate(kinds)
            if i % 2 == shard
        }
        write(folder / f"{shard}.tar", samples)
    mask = np.array(kinds[0::2] + kinds[1::2])
    return f"{folder}/*.tar", ~mask


def test_bad_samples_are_replaced_alike_for_every_split_of_the_work(tmp_path):
    reference, is_bad = half_bad(tmp_path, 170, 20)
    plain = corpus(reference)
    batches = list(plain.batches(0, 600, 12))
    images, tokens, keys = joined(batches)
    assert not is_bad[keys.numpy()].any()
    for first in range(0, 600, 12):
        assert len(set(keys[first : first + 12].tolist())) == 12
    planned = plain._order.take(0, 600)
    assert (keys.numpy() == planned)[~is_bad[planned]].all()
    assert sum(batch.bad.get("undecodable image", 0) for batch in batches) >= is_bad[planned].sum() > 50
    assert_equal(joined(list(corpus(reference, 2).batches(60, 600, 12))), [images[60:], tokens[60:], keys[60:]])
    ranks = [list(corpus(reference).batches(0, 600, 12, rank, 3)) for rank in range(3)]
    assert_equal(joined([part for parts in zip(*ranks, strict=True) for part in parts]), [images, tokens, keys])


def test_more_bad_samples_than_the_budget_end_the_run(tmp_path):
    reference, _ = half_bad(tmp_path, 170, 20)
    assert len(list(corpus(reference, bad_samples=0.3).batches(0, 3000, 12))) == 250
    with pytest.raises(DataError, match=r"1\d\d of .* samples read .*\(undecodable image: 1\d\d\)") as error:
        list(corpus(reference, bad_samples=0.05).batches(0, 3000, 12))
    assert f"For example {tmp_path}/" in str(error.value)
    assert ".jpg: undecodable image" in str(error.value)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("count", [60, 900])
def test_a_set_of_bad_samples_only_is_an_error_not_a_hang(tmp_path, workers, count):
    reference, _ = half_bad(tmp_path, 0, count)
    with pytest.raises(DataError, match="undecodable image: "):
        list(corpus(reference, workers, bad_samples=1.0 if count == 60 else 0.01).batches(0, 120, 12))


def test_many_samples_that_headers_show_to_be_bad_are_an_error_at_once(tmp_path, capsys):
    samples = {str(i): {"jpg": image(i % 7)} | ({"txt": b"x"} if i < 100 else {}) for i in range(201)}
    reference = write(tmp_path / "0.tar", samples)
    with pytest.raises(DataError, match=r"101 of 201 samples read cannot be used \(no caption: 101\)"):
        corpus(reference)
    corpus(reference, bad_samples=0.6)
    assert "s: left out 101 of 201 samples (no caption: 101)" in capsys.readouterr().err


def test_a_run_trains_without_bad_shards_where_that_is_allowed_and_says_so(tmp_path, capsys):
    """8 of 9 shards are the page of a server that refused them: a ninth of the data is not what was asked for."""
    reference = sound(tmp_path / "d", [60] * 9)
    for number in range(1, 9):
        (tmp_path / "d" / f"{number:05d}.tar").write_bytes(b"<html>403 Forbidden</html>")
    data = {"source": "dam", "shards": reference}
    with pytest.raises(DataError, match=r"data: dam: 8 of 9 shards are missing or damaged: .* \(a web page"):
        pretrain(tiny_config(tmp_path / "out", data=[data], batch_size=12, samples=36, warmup=0, workers=0))
    allowed = tiny_config(
        tmp_path / "out", data=[data | {"bad_shards": 8}], batch_size=12, samples=36, warmup=0, workers=0
    )
    metadata = torch.load(pretrain(allowed), weights_only=True)["metadata"]
    assert metadata["unique_samples"] == 60
    assert metadata["bad_samples"] == {"truncated or damaged tar": 8}
    said = capsys.readouterr().err
    assert f"dam: 8 of 9 shards are missing or damaged: {tmp_path}/d/00001.tar (a web page, not a tar), " in said
    assert "dam: left out 8 of 68 samples (truncated or damaged tar: 8)" in said


def test_batches_that_cannot_be_divided_are_refused(tmp_path):
    data = corpus(sound(tmp_path, [60]))
    with pytest.raises(UsageError, match="a batch of 12 samples cannot be divided equally among 5 processes"):
        data.batches(0, 24, 12, 0, 5)
    with pytest.raises(UsageError, match="a batch of 3 samples cannot be divided"):
        data.batches(0, 27, 12, 0, 2)
    data.batches(0, 6, 12, 0, 2)


def test_a_killed_worker_is_reported(tmp_path, monkeypatch):
    data = corpus(sound(tmp_path, [60]), workers=1)
    monkeypatch.setattr(Corpus, "samples", lambda *job: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(DataError, match="a process that decodes images was killed"):
        list(data.batches(0, 24, 12))


def test_spawned_workers_do_the_same(tmp_path, monkeypatch):
    data = corpus(sound(tmp_path, [60]), workers=1)
    expected = joined(list(data.batches(0, 24, 12)))
    monkeypatch.setattr(loader, "DataLoader", partial(loader.DataLoader, multiprocessing_context="spawn"))
    spawned = list(data.batches(0, 24, 12))
    assert_equal(joined(spawned), expected)
    assert spawned[0].wait_s > spawned[1].wait_s >= 0


def test_a_batch_left_early_leaves_no_process_behind(tmp_path):
    import gc
    import multiprocessing

    batches = corpus(sound(tmp_path, [60]), workers=2).batches(0, 2400, 12)
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    batches.close()
    del batches
    gc.collect()
    assert not multiprocessing.active_children()


def test_remote_shards_are_fetched_ahead_of_the_stream(tmp_path, monkeypatch):
    import time

    import fsspec

    from clipeval.remote.copies import local_path

    monkeypatch.setattr("clipeval.datasets.selection.REMOTE_SCHEMES", ("memory",))
    sound(tmp_path, [50] * 9)
    for path in tmp_path.glob("*.tar"):
        fsspec.filesystem("memory").pipe(f"/ahead/{path.name}", path.read_bytes())
    urls = [f"memory://ahead/{shard:05d}.tar" for shard in range(9)]
    data = corpus("memory://ahead/{00000..00008}.tar")
    expected = joined(list(corpus(f"{tmp_path}/*.tar").batches(0, 450, 12)))
    for url in urls:
        local_path(url).unlink()
    batches = data.batches(0, 450, 12)
    first = next(batches)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and sum(local_path(url).exists() for url in urls) < 4:
        time.sleep(0.02)
    time.sleep(0.3)
    assert 4 <= sum(local_path(url).exists() for url in urls) < 9  # two blocks of two or more shards, not all
    assert_equal(joined([first, *batches]), expected)


# Built-in data, in memory.


def digits(**changes) -> Corpus:
    return corpus("builtin:digits", **changes)


def test_digit_pixels_equal_the_transform_of_evaluation_and_captions_name_the_class():
    data = digits()
    dataset = open_dataset("digits", DatasetEntry(spec="builtin:digits"), "train")
    transform = open_clip.image_transform(16, is_train=False, mean=(0, 0, 0), std=(1, 1, 1))
    assert dataset.prompts is not None
    texts = dataset.prompts.texts()
    architecture = resolve(tiny_config("out").model, "tiny")
    batch = next(data.batches(0, 24, 24))
    for row, key in enumerate(batch.keys.tolist()):
        expected = (transform(dataset.image(key)) * 255).round().to(torch.uint8)
        assert torch.equal(batch.images[row], expected)
        own = model.tokenizer(architecture)(texts[dataset.labels[key]]).tolist()
        assert batch.tokens[row].tolist() in own


def test_held_out_icons_are_not_trained_on():
    from clipeval_train.config import SourceEntry
    from clipeval_train.input.memory import MemorySource

    source = MemorySource(SourceEntry(source="i", shards="builtin:icons/elusive"), 24)
    names = {glyph.caption: glyph.name for glyph in icons.load_glyphs(("elusive",))}
    assert 0 < len(source.captions) < len(names)
    assert not any(icons.is_held_out(names[caption]) for caption in source.captions)


def test_the_parts_of_ranks_make_up_the_batch_in_memory_too():
    data = digits()
    whole = list(data.batches(70, 107, 12))
    parts = [list(data.batches(71, 107, 12, rank, 3)) for rank in range(3)]
    assert [batch.stop for batch in whole] == [82, 94, 106, 107]
    for name in ("images", "crops", "tokens", "keys"):
        together = torch.cat([getattr(p, name) for step in zip(*parts, strict=True) for p in step])
        assert torch.equal(together, torch.cat([getattr(batch, name) for batch in whole])[1:])
    assert not torch.equal(whole[0].images, next(digits(seed=1).batches(70, 107, 12)).images)


def test_input_stays_bytes_and_is_cropped():
    batch = next(digits().batches(0, 12, 12))
    images, tokens = to_input(batch, CPU)
    assert torch.equal(tokens, batch.tokens)
    whole = to_input(Batch(0, 12, batch.images, None, batch.tokens, batch.keys), CPU)[0]
    assert whole.dtype == torch.uint8
    assert torch.equal(whole, batch.images)
    assert images.shape == whole.shape
    assert 1 < (images - whole).abs().mean() < 40
    assert batch.crops is not None
    whole_crop = Batch(0, 12, batch.images, torch.ones_like(batch.crops), batch.tokens, batch.keys)
    torch.testing.assert_close(to_input(whole_crop, CPU)[0], whole.float(), rtol=0, atol=1e-2)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU"))])  # fmt: skip
def test_prefetched_batches_are_those_of_the_stream(tmp_path, device):
    data = corpus(sound(tmp_path, [31, 40]), workers=1)
    for origin, kept in ((data, None), (digits(), 2)):
        plain = [to_input(batch, CPU) for batch in origin.batches(0, 100, 12)]
        ready = prefetch(origin.batches(0, 100, 12), torch.device(device))
        for number, (batch, images, tokens) in enumerate(ready):
            assert batch.start == 12 * number
            assert torch.equal(tokens.cpu(), plain[number][1])
            torch.testing.assert_close(images.cpu(), plain[number][0], rtol=0, atol=1e-4)
            if number == kept:
                break
        ready.close()


class OnDevice:
    """Stands for a tensor on a GPU."""

    def __init__(self, number):
        self.number = number

    def record_stream(self, stream):
        self.stream = stream


@pytest.fixture
def pretended_gpu(monkeypatch):
    """The calls that ``prefetch`` makes to CUDA, without a GPU: its thread and its queue are real."""
    from unittest.mock import MagicMock

    from clipeval_train.input import batch as module

    for name in ("Stream", "Event", "stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, MagicMock())
    monkeypatch.setattr(module, "to_input", lambda batch, device: (OnDevice(batch.start), OnDevice(-batch.start)))
    return MagicMock(type="cuda")


def numbered(stop, made, error=None):
    for start in range(stop):
        made.append(start)
        yield Batch(start, start + 1, *[torch.empty(0)] * 4)
    if error:
        raise error


def test_the_prefetching_thread_keeps_order_and_stays_a_little_ahead(pretended_gpu):
    made = []
    for number, (batch, images, tokens) in enumerate(prefetch(numbered(50, made), pretended_gpu)):
        assert (batch.start, images.number, tokens.number) == (number, number, -number)
        assert len(made) <= number + 5  # two are ready, one waits for room, one is used
        assert images.stream is tokens.stream is torch.cuda.current_stream()
    assert number == 49


def test_errors_of_the_prefetching_thread_reach_the_loop_and_leaving_early_ends_it(pretended_gpu):
    import threading

    ready = prefetch(numbered(3, [], DataError("gone")), pretended_gpu)
    assert [next(ready)[0].start for _ in range(3)] == [0, 1, 2]
    with pytest.raises(DataError, match="gone"):
        next(ready)
    made, before = [], threading.active_count()
    ready = prefetch(numbered(50, made), pretended_gpu)
    next(ready)
    assert threading.active_count() == before + 1
    ready.close()
    assert threading.active_count() == before
    assert len(made) < 8


def test_the_fingerprint_follows_content(tmp_path):
    same = [{"source": "renamed", "shards": "builtin:digits", "weight": 3}]
    assert digits().fingerprint == corpus("", data=same, seed=4).fingerprint
    assert digits().fingerprint != corpus("builtin:icons/codicon", batch_size=8).fingerprint


def test_a_corpus_can_be_sent_to_another_process(tmp_path):
    data = corpus(sound(tmp_path, [60]))
    list(data.batches(0, 12, 12))
    copy = pickle.loads(pickle.dumps(data))
    assert_equal(joined(list(copy.batches(0, 24, 12))), joined(list(data.batches(0, 24, 12))))


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        ("builtin:digit", "builtin:digit: there is no such data set. Did you mean 'digits'"),
        ("builtin:icons/materiel", "Did you mean 'material'"),
    ],
)
def test_unknown_built_in_data(shards, message):
    with pytest.raises(UsageError, match=message):
        corpus(shards)


def test_a_missing_icon_package_is_a_data_error(monkeypatch):
    monkeypatch.setattr(icons.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="QtAwesome"):
        corpus("builtin:icons/elusive")
