"""The option that names a cluster, of commands that share out work."""

import pytest

from CACScoringLib.cli import main as scoring
from CACScoringLib.cli.options import on_cluster
from CACScoringLib.cohort.cluster import chosen_cluster
from CACTrainingLib.cli import main as training


def test_a_command_works_on_it_while_it_lasts():
    def parsed(*more):
        return training.make_parser().parse_args(["cohort", "IN", "--output", "OUT", *more])

    with on_cluster(parsed()):
        assert chosen_cluster().is_local
    options = parsed("--cluster", "tcp://head:8786")
    with on_cluster(options):
        assert chosen_cluster().name == "tcp://head:8786"
    assert chosen_cluster().is_local
    assert "cluster" not in options.extras(options)
    options = parsed("--cluster", "slurm")
    assert "cluster" in options.extras(options)


@pytest.mark.parametrize("cluster", ["cloud", "http://head:8786", "tcp://head"])
def test_no_cluster_is_told_before_anything_is_done(cluster, capsys):
    assert training.main(["cohort", "IN", "--output", "OUT", "--cluster", cluster]) == scoring.BAD_INPUT
    assert f"no cluster '{cluster}'" in capsys.readouterr().err
