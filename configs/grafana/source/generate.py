#!/usr/bin/env python3
"""Writes the dashboards into the folder above and into the Helm chart, or into the folder that is given.

    pip install -r configs/grafana/source/requirements.txt
    configs/grafana/source/generate.py
"""

import json
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

import cortex_tenant
import overview
import tenant
import upstream
from common import number_panels

BOARDS = {
    "tenantry-overview": overview.board,
    "tenantry-tenant": tenant.board,
    "tenantry-upstream": upstream.board,
    "cortex-tenant": cortex_tenant.board,
}


def text(board):
    return json.dumps(number_panels(board()), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def main():
    configs = Path(__file__).resolve().parents[2]
    directories = [configs / "grafana", configs / "helm/tenantry/files/dashboards"]
    for name, board in BOARDS.items():
        generated = text(board)
        for directory in map(Path, sys.argv[1:]) if len(sys.argv) > 1 else directories:
            (directory / f"{name}.json").write_text(generated)


if __name__ == "__main__":
    main()
