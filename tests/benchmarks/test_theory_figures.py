"""The theory's figures: they are drawn, small, and what its page shows."""

import re

import torch
from PIL import Image

from benchmarks.theory_figures import draw_initialization, draw_spectrum, shrink
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "explanation" / "theory.md"


def test_every_picture_of_the_page_is_there_and_small():
    names = re.findall(r"\]\(\.\./(.+?\.png)\)", PAGE.read_text())
    assert len(names) == 7
    assert all((ROOT / "docs" / name).stat().st_size < 100_000 for name in names)


def test_the_figure_of_the_initialisation_has_the_pages_numbers_roughly(tmp_path):
    found = draw_initialization(tmp_path / "a.png", seeds=4, draws=2000)
    assert found["staf-theorem"]["p_value"] > 1e-3 > found["staf-published"]["p_value"]
    assert max(found["normalized"]["within: deviation"]) < 0.02
    shrink(tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").mode == "P"


def test_the_figure_of_the_spectrum_shows_every_line(tmp_path):
    found = draw_spectrum(tmp_path / "a.png")
    assert all(found[f"τ = {count}"]["largest elsewhere"] < 1e-13 for count in (1, 3))
    assert found["growth τ = 1"][0] == 17  # 16 features' own, and zero
    assert torch.tensor(found["growth τ = 5"]).diff().min() > 0
