"""What all figures share."""

from staf_nerf.figures.plot import new_figure


def test_thirty_lines_of_an_axis_can_be_told_apart():
    _, axes = new_figure(1, 2, (4.0, 3.0))
    for axis in axes.flat:
        looks = [(line.get_color(), line.get_linestyle()) for _ in range(30) for line in axis.plot([0, 1])]
        assert len(set(looks)) == 30
