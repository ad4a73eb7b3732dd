"""From a plan file to runs, and messages that name the place in it."""

import itertools
from pathlib import Path

import pytest
from tiny_ladder import document, ladder, plan_file, tower

from clipeval.errors import UsageError
from clipeval_train.config import load_pretrain
from clipeval_train.ladder.grid import load_ladder


def test_every_combination_is_one_run(tmp_path):
    runs = ladder(tmp_path).runs
    expected = [f"{m}-{s}-{n}" for m, s, n in itertools.product(("xs", "s"), "ab", (64, 128))]
    assert [run.name for run in runs] == expected
    for run in runs:
        name, source, samples = run.name.split("-")
        config = run.config
        assert (config.arch, config.samples, config.out) == (name, int(samples), str(tmp_path / "runs" / run.name))
        assert config.model == tower({"xs": 4, "s": 8}[name])
        assert [entry.source for entry in config.data] == [{"a": "a", "b": "digits"}[source]]
        assert (config.batch_size, config.lr, config.warmup) == (32, 0.01, 8)
    assert len({run.config.out for run in runs}) == 8


def test_runs_may_be_named_one_by_one(tmp_path):
    """Beside a grid or without one; a value of theirs replaces that of ``defaults``."""
    runs = [
        {"model": "s", "source": "a", "samples": "1e3"},
        {"model": "xs", "source": "b", "samples": 64, "seed": 1, "lr": 3e-3},
    ]
    alone = ladder(tmp_path, grid={}, runs=runs).runs
    assert [run.name for run in alone] == ["s-a-1000", "xs-b-64-lr0.003-seed1"]
    assert [(run.config.seed, run.config.lr, run.config.samples) for run in alone] == [(0, 1e-2, 1000), (1, 3e-3, 64)]
    beside = ladder(tmp_path, grid={"model": ["xs"], "source": ["a"], "samples": [64]}, runs=runs).runs
    assert [run.name for run in beside] == ["xs-a-64", *(run.name for run in alone)]


def test_a_run_is_a_pretrain_configuration(tmp_path):
    for run in ladder(tmp_path).runs:
        path = tmp_path / "run.yaml"
        path.write_text(run.yaml)
        assert load_pretrain(path, []) == run.config


def test_further_keys_open_clip_names_and_numbers(tmp_path):
    found = ladder(
        tmp_path,
        grid={"seed": [0, 1], "samples": ["1e3", 2000], "model": ["ViT-B-32", "xs"], "lr": ["1e-3"]},
        defaults={"batch_size": 32, "data": [{"source": "d", "shards": "builtin:digits"}]},
    )
    assert [run.name for run in found.runs[:5]] == [
        "ViT-B-32-1000-lr0.001-seed0",
        "ViT-B-32-1000-lr0.001-seed1",
        "ViT-B-32-2000-lr0.001-seed0",
        "ViT-B-32-2000-lr0.001-seed1",
        "xs-1000-lr0.001-seed0",
    ]
    run = found.runs[0]
    assert (run.config.model, run.config.samples, run.config.lr, run.config.seed) == ("ViT-B-32", 1000, 1e-3, 0)
    assert run.architecture.name == "ViT-B-32"


def test_settings_replace_those_of_the_file(tmp_path):
    path = plan_file(tmp_path)
    runs = load_ladder(path, ["defaults.lr=5e-3", "grid.samples=[32]", "out=elsewhere"]).runs
    assert len(runs) == 4
    assert (runs[0].config.lr, runs[0].config.out) == (5e-3, "elsewhere/xs-a-32")


def test_mixtures_of_sources(tmp_path):
    """Shares are relative, a source of several entries divides its own, and one without a share is left out."""
    sources = {
        "a": {"shards": "builtin:digits", "weight": 7},
        "b": [{"source": "x", "shards": "d1", "weight": 1}, {"source": "y", "shards": "d2", "weight": 3}],
    }
    mixtures = {"half": {"a": 1, "b": 1}, "most": {"a": "1e-1", "b": 0.4}, "none": {"a": 2, "b": 0}}
    runs = ladder(tmp_path, grid={**GRID, "source": ["a", *mixtures]}, sources=sources, mixtures=mixtures).runs
    assert [run.name for run in runs] == ["xs-a-64", "xs-half-64", "xs-most-64", "xs-none-64"]
    found = [{entry.source: entry.weight for entry in run.config.data} for run in runs]
    assert found[0] == {"a": 7}
    assert found[1] == pytest.approx({"a": 1, "x": 0.25, "y": 0.75})
    assert found[2] == pytest.approx({"a": 0.1, "x": 0.1, "y": 0.3})
    assert found[3] == {"a": 2}


GRID = {"model": ["xs"], "source": ["a"], "samples": [64]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grids": {}}, r"grids: unknown key\. Did you mean 'grid'\?"),
        ({"grid": {}}, r"grid: this key is required, or `runs`"),
        ({"runs": [{"model": "xs", "sample": 3}]}, r"runs\[0\]\.sample: unknown key\. Did you mean 'samples'\?"),
        ({"runs": [{"model": "xs", "source": "c", "samples": 9}]}, r"runs\[0\]\.source: 'c' is not in `sources`"),
        ({"runs": [{"model": "xs", "source": "a", "samples": -9}]}, r"runs\[0\]\.samples: input should be greater"),
        (
            {"runs": [{"model": "xs", "source": "a", "samples": 64}]},
            r"grid\.model\[0\] and runs\[0\]\.model, .*both be called 'xs-a-64'",
        ),
        ({"grid": {"model": []}}, r"grid\.model: an empty list leaves nothing to run"),
        ({"grid": {"model": "xs"}}, r"grid\.model: expected a list: \[xs\]"),
        ({"grid": {**GRID, "sample": [1]}}, r"grid\.sample: unknown key\. Did you mean 'samples'\?"),
        ({"grid": {**GRID, "data": [1]}}, r"grid\.data: vary `source`"),
        (
            {"grid": {**GRID, "samples": [64, 64.0]}},
            r"grid\.samples\[0\] and grid\.samples\[1\]: .*both be called 'xs-a-64'",
        ),
        ({"grid": {**GRID, "source": ["a", "c"]}}, r"grid\.source\[1\]: 'c' is not in `sources`\. There are: a, b\."),
        ({"grid": {**GRID, "model": ["m"]}}, r"grid\.model\[0\]: 'm' is not an architecture of open_clip"),
        ({"grid": {**GRID, "seed": [0, -1]}}, r"grid\.seed\[1\]: input should be greater than or equal to 0"),
        ({"defaults": {"batch_size": 32, "lr": 1, "warmpu": 3}}, r"defaults\.warmpu: unknown key\. .*'warmup'"),
        ({"defaults": {"lr": 1}}, r"defaults\.batch_size: this key is required"),
        ({"defaults": {"batch_size": 32, "lr": 1, "samples": 3}}, r"defaults\.samples: grid\.samples gives its values"),
        ({"defaults": {"batch_size": 32, "lr": 1, "out": "x"}}, r"defaults\.out: .*at the top"),
        ({"defaults": {"batch_size": 32, "lr": 1, "data": []}}, r"defaults\.data: grid\.source gives the data"),
        ({"defaults": {"batch_size": 32, "lr": 1, "warmup": 64}}, r"defaults\.warmup: 64 samples of warm-up leave"),
        ({"models": {"xs": {**tower(4), "embed": 3}}}, r"models\.xs\.embed: unknown key\. Did you mean 'embed_dim'\?"),
        ({"sources": {"a": {"shard": "x"}, "b": {"shards": "x"}}}, r"sources\.a\.shard: unknown key\. .*'shards'"),
        ({"sources": {"a": [{"shards": "x", "weight": 0}]}}, r"sources\.a\[0\]\.weight: input should be greater"),
        ({"mixtures": {"a": {"b": 1}}}, r"mixtures\.a: is a name in `sources`, too"),
        ({"mixtures": {"q": {"c": 1}}}, r"mixtures\.q\.c: 'c' is not in `sources`\. There are: a, b\."),
        ({"mixtures": {"q": {"a": 0}}}, r"mixtures\.q: no source has a share above 0"),
        ({"mixtures": {"q": {"a": -1}}}, r"mixtures\.q\.a: input should be greater"),
        ({"price_per_hour": -1}, r"price_per_hour: input should be greater than or equal to 0"),
    ],
)
def test_mistakes_name_their_place_in_the_file(tmp_path, changes, message):
    path = plan_file(tmp_path, **{"grid": GRID, "models": {"xs": tower(4)}} | changes)
    with pytest.raises(UsageError, match=message) as error:
        load_ladder(path)
    assert str(error.value).startswith(f"{path}: ")


def test_no_file_and_no_mapping(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text("[1]")
    with pytest.raises(UsageError, match="expected a mapping with the keys grid, runs, defaults, models, sources"):
        load_ladder(path)
    assert document(tmp_path)["out"].startswith(str(tmp_path))


def test_an_architecture_may_have_keys_of_its_own(tmp_path):
    models = {
        "xs": {"model": tower(4), "lr": "4e-3", "micro_batch": 16},
        "B": {"model": "ViT-B-32", "batch_size": 64, "processes": 2},
        "s": tower(8),
    }
    grid = {"model": ["xs", "B", "s"], "source": ["a"], "samples": [64, 128]}
    found = ladder(tmp_path, grid=grid, models=models)
    told = {
        run.name: (run.config.lr, run.config.batch_size, run.config.micro_batch, run.processes, run.architecture.name)
        for run in found.runs
    }
    assert told["xs-a-64"] == told["xs-a-128"] == (4e-3, 32, 16, 1, "xs")
    assert told["B-a-64"] == (1e-2, 64, None, 2, "ViT-B-32")
    assert told["s-a-128"] == (1e-2, 32, None, 1, "s")
    assert found.of_models == ("lr", "micro_batch", "batch_size", "processes")
    assert found.runs[0].config.model == tower(4)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({**tower(4), "lr": 1}, r"models\.xs\.lr: is a key of a run\. Put the architecture beside it, under `model`"),
        ({"model": tower(4), "samples": 64}, r"models\.xs\.samples: grid\.samples gives its values"),
        ({"model": tower(4), "out": "x"}, r"models\.xs\.out: architectures cannot differ in it"),
        ({"model": tower(4), "lrr": 1}, r"models\.xs\.lrr: unknown key\. Did you mean 'lr'\?"),
        ({"model": tower(4), "lr": -1}, r"models\.xs\.lr: input should be greater than 0"),
        ({"model": {**tower(4), "embed": 3}}, r"models\.xs\.model\.embed: unknown key\."),
        ({"model": "ViT-B-33"}, r"models\.xs\.model: 'ViT-B-33' is not an architecture of open_clip"),
        ({"model": tower(4), "processes": 0}, r"models\.xs\.processes: 0: expected how many processes"),
    ],
)
def test_mistakes_in_keys_of_an_architecture(tmp_path, entry, message):
    with pytest.raises(UsageError, match=message):
        ladder(tmp_path, grid=GRID, models={"xs": entry})


def test_the_example_trains_both_sources_alike():
    runs = load_ladder(Path(__file__).parents[2] / "examples/ladder.yaml").runs
    assert len(runs) == 18
    of_source = {
        source: [(run.config.arch, run.config.samples) for run in runs if run.config.data[0].source == source]
        for source in ("material", "phosphor-remix")
    }
    assert of_source["material"] == of_source["phosphor-remix"]
    assert len(set(of_source["material"])) == 9
    for run in runs:
        others = ("arch", "model", "samples", "data", "out")
        assert {k: v for k, v in run.document.items() if k not in others} == {
            k: v for k, v in runs[0].document.items() if k not in others
        }
