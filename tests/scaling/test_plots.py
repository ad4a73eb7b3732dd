"""Figures: what is drawn where, and that the same call draws the same file."""

from __future__ import annotations

import numpy as np
import pytest
from tables import table

from clipeval.scaling.fit import fit


@pytest.fixture(scope="module")
def paper():
    return fit(preset="cherti2023", bootstrap=200)


@pytest.fixture(scope="module")
def figures(paper):
    return paper.plot()


def panel(figures, name):
    return figures[name].axes[0]


def line(axis, text):
    (found,) = [line for line in axis.get_lines() if str(line.get_label()).startswith(text)]
    return found


def points(axis):
    return np.concatenate([np.asarray(drawn.get_offsets()) for drawn in axis.collections if drawn.get_zorder() == 4])


def test_one_figure_per_data_set_and_one_of_all(figures):
    assert set(figures) == {
        "imagenet1k-acc1",
        "imagenet_robustness-acc1",
        "flickr30k-image_retrieval_recall@5",
        "mscoco_captions-image_retrieval_recall@5",
        "scaling",
    }
    assert len(figures["scaling"].axes) == 4


def test_axes_are_logarithmic_and_say_what_they_show(figures):
    axis = panel(figures, "imagenet1k-acc1")
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
    assert axis.get_title(loc="left") == "ImageNet"
    assert axis.get_ylabel() == "Top-1 error (%)"
    assert "GMACs" in axis.get_xlabel()
    coco = panel(figures, "mscoco_captions-image_retrieval_recall@5")
    assert coco.get_title(loc="left") == "MS-COCO, text→image retrieval"
    assert coco.get_ylabel() == "100 − text→image R@5 (%)"


def test_ticks_are_round_percents(figures):
    for name in figures:
        for axis in figures[name].axes:
            low, high = axis.get_ylim()
            ticks = [tick for tick in axis.get_yticks() if low <= tick <= high]
            assert len(ticks) >= 4
            assert [axis.yaxis.get_major_formatter()(tick) for tick in ticks] == [f"{tick:g}" for tick in ticks]


def test_every_checkpoint_is_a_point_at_its_compute_and_error(paper, figures):
    laws = [law for law in paper.laws if law.points.cell[1] == "imagenet1k"]
    expected = np.concatenate([np.stack([law.points.x, 100 * law.points.error], axis=1) for law in laws])
    drawn = points(panel(figures, "imagenet1k-acc1"))
    assert len(drawn) == 32
    np.testing.assert_allclose(drawn[np.lexsort(drawn.T)], expected[np.lexsort(expected.T)])


def test_the_line_is_the_law(paper, figures):
    drawn = line(panel(figures, "imagenet1k-acc1"), "LAION")
    x, y = drawn.get_data()
    assert y == pytest.approx(100 * 5.8580592 * x**-0.11138849, rel=1e-6)
    (law,) = [law for law in paper.laws if law.points.cell[1] == "imagenet1k" and law.points.source == "LAION"]
    assert x.min() >= law.points.x.min()
    assert x.max() <= law.points.x.max()
    assert "5.8581" in drawn.get_label()
    assert "-0.11139" in drawn.get_label()


def test_the_crossover_is_marked_where_it_is_and_only_there(figures):
    vertical = [
        drawn.get_xdata()[0]
        for drawn in panel(figures, "imagenet1k-acc1").get_lines()
        if len(drawn.get_xdata()) == 2 and len(set(drawn.get_xdata())) == 1
    ]
    assert vertical == [pytest.approx(2.537e11, rel=1e-3)]
    coco = panel(figures, "mscoco_captions-image_retrieval_recall@5")
    assert [text.get_text() for text in coco.texts] == ["crossover undetermined"]


def test_a_law_that_does_not_scale_is_not_extrapolated(figures):
    drawn = line(panel(figures, "flickr30k-image_retrieval_recall@5"), "CLIP-WIT")
    assert drawn.get_label() == "CLIP-WIT: too few points for a law"
    assert drawn.get_linestyle() == ":"


def test_equal_things_look_equal_in_all_panels(figures):
    assert len({line(axis, "LAION").get_color() for axis in figures["scaling"].axes}) == 1


def test_a_joint_law_is_drawn_as_measured_over_fitted_error():
    rows = table(n=12).assign(gmacs=np.tile([2.0, 7.4, 20.0], 8))
    found = fit(rows, x="gmacs,samples_seen", bootstrap=200)
    axis = found.plot()["my-birds-acc1"].axes[0]
    expected = np.concatenate(
        [np.stack([law.error(law.points.x), law.points.error], axis=1) * 100 for law in found.laws]
    )
    drawn = points(axis)
    np.testing.assert_allclose(drawn[np.lexsort(drawn.T)], expected[np.lexsort(expected.T)])
    assert axis.get_xlim() == axis.get_ylim()


def test_rows_without_an_upstream_data_set_are_drawn_too():
    rows = table().assign(source_family=lambda t: t["source"], source=None)
    assert len(points(fit(rows, bootstrap=200).plot()["my-birds-acc1"].axes[0])) == 12


def test_many_sources_share_one_legend_outside_the_panel():
    rows = table(n=15).assign(source=lambda t: [f"s{i % 6}" for i in range(len(t))])
    figure = fit(rows, bootstrap=200).plot()["my-birds-acc1"]
    assert figure.axes[0].get_legend() is None
    assert [text.get_text() for text in figure.legends[0].get_texts()][1:7] == [f"s{i}" for i in range(6)]


def test_files_are_png_and_pdf_and_the_same_again(tmp_path):
    found = fit(table(), bootstrap=200)
    found.plot(tmp_path / "a")
    found.plot(tmp_path / "b")
    written = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert written == ["my-birds-acc1.pdf", "my-birds-acc1.png"]
    for name in written:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_data_sets_with_slashes_and_shots_have_file_names():
    rows = table().assign(dataset="vtab/pets", task="linear_probe", shots=10)
    assert set(fit(rows, bootstrap=200).plot()) == {"vtab_pets-acc1-10shot"}
