"""`teacher list` and `teacher import`."""

from __future__ import annotations

import argparse
import sys

from kdtune.commands.places import reading, writing
from kdtune.commands.say import say
from kdtune.errors import EXIT_OK
from kdtune.messages import line_width


def list_teachers(options: argparse.Namespace) -> int:
    from kdtune.report.teachers import teacher_rows, teacher_table

    print(teacher_table(teacher_rows(reading(options)), line_width(sys.stdout)))
    return EXIT_OK


def import_teacher(options: argparse.Namespace) -> int:
    from kdtune.config.load import load_trial
    from kdtune.train.importing.imports import import_checkpoint, import_trial, yaml_lines

    store = writing(options)
    if options.source.is_dir():
        print(import_trial(options.source, store))
        return EXIT_OK
    config = load_trial(options.trial, options.set)
    imported = import_checkpoint(options.source, config, store, options.weights)
    heads = ", ".join(imported.heads) or "none"
    found = f"; {imported.found}" if imported.found else ""
    say(f"trial {imported.key} in {imported.files.folder}; layout {imported.layout}, heads: {heads}{found}")
    say("in a sweep file, under `teachers:`; in a trial, under `teacher:` or `start:` without the name:")
    print(yaml_lines(imported, config, options.name))
    return EXIT_OK
