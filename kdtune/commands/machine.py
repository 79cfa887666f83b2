"""`doctor`, `ui`, `schema` and `completion`."""

from __future__ import annotations

import argparse
import json

from kdtune.commands.say import show
from kdtune.errors import EXIT_FAILED_TRIALS, EXIT_OK
from kdtune.store.places import check_place


def doctor(options: argparse.Namespace) -> int:
    from kdtune.doctor.examine import PACKED, TRIAL, examine
    from kdtune.store import StoreFiles

    check_place(options.store, "--store")
    tried = problems = 0
    for finding in examine(StoreFiles(options.store), options.device, full=options.full):
        show(str(finding))
        tried += finding.name in (TRIAL, PACKED)
        problems += finding.state == "problem"
    if problems:
        show(f"{problems} problem{'s' if problems != 1 else ''}")
        return EXIT_FAILED_TRIALS
    show(f"ready: every trial repeated its bits ({tried}/{tried})")
    return EXIT_OK


def ui(options: argparse.Namespace) -> int:
    from kdtune.tracking.location import tracking_uri
    from kdtune.tracking.serve import serve

    serve(tracking_uri(), options.port)


def schema(options: argparse.Namespace) -> int:
    from kdtune.config.sweep import SweepConfig

    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **SweepConfig.model_json_schema()}
    print(json.dumps(schema, indent=1, ensure_ascii=False))
    return EXIT_OK


def completion(options: argparse.Namespace) -> int:
    import argcomplete

    print(argcomplete.shellcode(["kdtune"], shell=options.shell))
    return EXIT_OK
