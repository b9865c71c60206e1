"""The chart's generated files and its checks. Called by `make generate` and `make lint`.

python -m dev.chart generate    # writes the table of values in its README and the flavors in its values schema
python -m dev.chart lint        # helm lint, kubeconform, generated files up to date
"""

from __future__ import annotations

import argparse
import sys

from dev.chart.generated import check_generated, write_generated
from dev.chart.manifests import check_chart_and_examples, helm_lint
from dev.cluster.state import ClusterError, step


def lint() -> None:
    with step("helm lint"):
        helm_lint()
    with step("kubeconform"):
        print(check_chart_and_examples())
    with step("chart: generated files"):
        check_generated()


COMMANDS = {"generate": write_generated, "lint": lint}


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
