"""`actorpool metrics`: what Prometheus reads."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tests.cli.running import run, up, write


def test_the_figures_of_a_node_are_in_the_format_of_prometheus(tmp_path):
    with up(write(tmp_path)) as node:
        node.wait_for("serves")
        done = run("metrics", "shop")
    assert done.returncode == 0, done.stderr
    families = {family.name: family for family in text_string_to_metric_families(done.stdout)}
    (size,) = families["actorpool_size"].samples
    assert (size.labels, size.value) == ({"pool": "echo"}, 2)
    assert families["actorpool_limit"].samples[0].value == 12
    assert families["actorpool_build_info"].samples[0].value == 1
