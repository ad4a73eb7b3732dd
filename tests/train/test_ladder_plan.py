"""What a ladder costs, by closed forms, and the measurement that it rests on."""

import itertools
import json
from types import SimpleNamespace

import pytest
from tiny_ladder import ladder, tower

from clipeval.models.profile import Profile
from clipeval_train.config import parse_pretrain
from clipeval_train.ladder import throughput
from clipeval_train.ladder.plan import Plan, clock, cost_of, plan, print_plan
from clipeval_train.ladder.processes import Slot
from clipeval_train.ladder.runs import hidden
from clipeval_train.ladder.throughput import Throughput

SIZE = Profile(1e6, 6e5, 4e5, 0.5, 0.3, 0.2, 16)
SLOT = Slot(1, None)


def cost(name, samples, rate, memory=1.0, price=None, state="new", before=0, after="", processes=1):
    """Of a run that has no more of a run than what costs are made of."""
    run = SimpleNamespace(
        name=name,
        architecture=SimpleNamespace(profile=SIZE),
        config=SimpleNamespace(samples=samples, model_dump=lambda mode: {}),
        seen_before=before,
        after=after,
        processes=processes,
    )
    return cost_of(run, state, Throughput(rate, memory), price)


def test_one_run_by_hand():
    found = cost("x", 7_200_000, 1000.0, 2.5, price=3.0)
    assert (found.params, found.gmacs, found.gmacs_total) == (1e6, 0.5, 3_600_000)
    assert (found.hours, found.price, found.memory_gb) == (2.0, 6.0, 2.5)


def test_totals_by_hand():
    costs = (cost("a", 3600, 1.0, 1.0, 2.0), cost("b", 7200, 2.0, 4.0, 2.0, "finished"), cost("c", 1800, 1.0, 2.0, 2.0))
    found = Plan(costs, (costs[0], costs[2]), jobs=2)
    assert found.total() == {
        "runs": 3,
        "samples": 12_600,
        "gmacs_total": 6_300.0,
        "memory_gb": 6.0,  # the two largest at once
        "hours": 2.5,
        "clock_hours": 1.5,  # b beside a, then c
        "price": 5.0,
    }
    left = found.total(found.left)
    assert (left["runs"], left["hours"], left["clock_hours"], left["price"]) == (2, 1.5, 1.0, 3.0)
    assert Plan((cost("a", 1, 1.0),), (), 1).total()["price"] is None
    assert Plan((), (), 2).total()["clock_hours"] == 0


@pytest.mark.parametrize("jobs", [1, 2, 3, 7])
def test_clock_against_a_simulation(jobs):
    hours = (3, 1, 4, 1, 5, 9, 2, 6, 5)
    work = [cost(f"{n}", n + 1, (n + 1) / (3600 * hours), 1.0) for n, hours in enumerate(hours)]
    left = list(reversed(hours))  # the most samples first
    now, running = 0.0, []
    while left or running:  # minute by minute
        while left and len(running) < jobs:
            running.append(now + left.pop(0))
        now += 1.0
        running = [end for end in running if end > now]
    assert clock(work, jobs) == pytest.approx(now)
    assert max(sum(hours) / jobs, 9) <= clock(work, jobs) + 1e-9


def test_clock_with_trunks_and_several_processes_by_hand():
    trunk = cost("t", 3600, 1.0)  # 1 h
    branches = [cost("a", 7200, 1.0, before=3600, after="t"), cost("b", 10800, 1.0, before=3600, after="t")]  # 1, 2 h
    wide = cost("w", 14400, 1.0, processes=2)  # 4 process hours, 2 h of two
    assert clock([trunk, *branches], 1) == pytest.approx(4)
    assert clock([trunk, *branches], 2) == pytest.approx(3)  # the trunk alone, then both
    assert clock([branches[0]], 2) == pytest.approx(1)  # its trunk is finished
    assert clock([wide, trunk, branches[0]], 2) == pytest.approx(4)  # both at the wide one, then trunk and branch
    assert wide.price is None
    assert Plan((wide, trunk), (), 2).total()["hours"] == pytest.approx(5)
    assert cost("w", 7200, 1.0, price=3.0, processes=2).price == pytest.approx(6)


@pytest.fixture
def measurements(monkeypatch):
    """Replaces the measurement: pairs per second is 1000 / width, and what was measured is listed."""
    done = []

    def measured(run, slot):
        done.append(run.architecture.name)
        return Throughput(1000 / run.architecture.config["embed_dim"], 0.5)

    monkeypatch.setattr(throughput, "_measured", measured)
    return done


def test_the_plan_of_a_grid(tmp_path, measurements, capsys):
    grid = ladder(tmp_path, price_per_hour=7.2)
    found = plan(grid, [SLOT] * 2)
    assert measurements == ["xs", "s"]  # once per architecture, whatever source and length
    assert [cost.run for cost in found.costs] == [run.name for run in grid.runs]
    for cost, (width, _, samples) in zip(found.costs, itertools.product((4, 8), "ab", (64, 128)), strict=True):
        assert cost.samples == samples
        assert cost.hours == pytest.approx(samples * width / 1000 / 3600, rel=1e-12)
        assert cost.price == pytest.approx(7.2 * cost.hours, rel=1e-12)
        assert cost.gmacs_total == cost.gmacs * samples
        assert cost.state == "new"
        vocabulary, context, patches = 49408, 12, 5
        block = 12 * width * width + 13 * width  # two norms, attention and a fourfold MLP, with biases
        image = 3 * 64 * width + width + patches * width + 2 * 2 * width + block + width * width
        text = vocabulary * width + context * width + block + 2 * width + width * width
        assert cost.params == image + text + 1
    total = 2 * (64 + 128) * (4 + 8) / 1000 / 3600
    assert found.total()["hours"] == pytest.approx(total, rel=1e-12)
    assert plan(grid, [SLOT]).jobs == 1
    assert measurements == ["xs", "s"]  # remembered
    print_plan(found)
    shown = capsys.readouterr().out
    assert "xs-a-64" in shown
    assert "8 runs" in shown
    assert "measured on this machine" in shown
    document = found.document()
    assert json.loads(json.dumps(document)) == document
    assert document["measured"] == ["samples_per_second", "memory_gb"]


@pytest.mark.parametrize("width", range(40, 201, 8))
def test_a_plan_fits_into_any_width(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    costs = (cost("trunk", 3600, 1.0), cost("branch-of-it-25600", 7200, 1.0, 1.5, before=3600, after="trunk"))
    print_plan(Plan(costs, costs[1:], 2))
    *lines, told = capsys.readouterr().out.splitlines()
    assert told.startswith("* measured on this machine")
    assert [line for line in lines if len(line) > width or line != line.rstrip()] == []
    text = " ".join(" ".join(lines).split())
    assert all(word in text for word in ("trunk new", "branch-of-it-25600 new", "2 runs all", "1 run left to do"))
    assert text.count("1.0 h") == 3
    assert "2.0 h" in text
    assert "price" not in text, "nothing costs money"
    assert (width < 96) == ("No room here for:" in text)


def test_another_step_is_measured_again(tmp_path, measurements):
    plan(ladder(tmp_path), [SLOT])
    plan(ladder(tmp_path, defaults={"batch_size": 32, "lr": 1e-2, "warmup": 0, "seed": 3}), [SLOT])
    assert len(measurements) == 2  # neither warm-up nor seed changes a step
    plan(ladder(tmp_path, defaults={"batch_size": 64, "lr": 1e-2}), [SLOT])
    assert len(measurements) == 4
    assert len(json.loads((hidden(tmp_path / "runs") / "throughput.json").read_text())) == 4


def test_the_part_of_a_batch_that_one_process_has_needs_no_lanes(tmp_path):
    grid = {"model": ["xs"], "source": ["a"], "samples": [96]}
    [run] = ladder(tmp_path, grid=grid, defaults={"batch_size": 24, "lanes": 8, "processes": 8, "lr": 1e-2}).runs
    step = parse_pretrain(throughput._step(run) | {"samples": 12, "out": "x"}, "defaults")
    assert (step.batch_size, step.lanes) == (3, 1)


def test_steps_are_really_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(throughput, "_SECONDS", 0.2)
    run = ladder(tmp_path, grid={"model": ["xs"], "source": ["a"], "samples": [1_000_000]}).runs[0]
    result = tmp_path / "found.json"
    throughput._steps({key: run.document[key] for key in ("model", "arch", "data", "batch_size", "lr")}, str(result))
    found = Throughput(**json.loads(result.read_text()))
    assert 50 < found.samples_per_second < 1e6
    assert 0.1 < found.memory_gb < 64
    assert tower(4) == run.config.model
