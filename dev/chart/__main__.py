"""The chart's generated files and its checks. Called by `make generate` and `make lint`.

python -m dev.chart generate    # writes the tables in its README, the flavors in its values schema, what Artifact Hub shows,
                                # and the dashboard
python -m dev.chart lint        # helm lint, kubeconform, generated files up to date
python -m dev.chart package     # packs it into build/, with the changelog for Artifact Hub
"""

from __future__ import annotations

import argparse
import sys

from dev.chart.generated import check_generated, package, write_generated
from dev.chart.manifests import check_chart_and_examples, helm_lint
from dev.cluster.state import REPOSITORY, ClusterError, step


def lint() -> None:
    with step("helm lint"):
        helm_lint()
    with step("kubeconform"):
        print(check_chart_and_examples())
    with step("chart: generated files"):
        check_generated()


def pack() -> None:
    print(package(REPOSITORY / "build"))


COMMANDS = {"generate": write_generated, "lint": lint, "package": pack}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="dev.chart", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=COMMANDS)
    try:
        COMMANDS[parser.parse_args().command]()
    except ClusterError as error:
        print(f"dev.chart: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
