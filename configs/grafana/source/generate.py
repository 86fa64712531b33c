#!/usr/bin/env python3
"""Writes the dashboards into the folder above, or into the one that is given.

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
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1]
    for name, board in BOARDS.items():
        (directory / f"{name}.json").write_text(text(board))


if __name__ == "__main__":
    main()
