"""`python -m tools.house`: the state of the house. `... pin`: pin the lists as they are. `... docs`: write every page
that is made from the source, or one of them: map, faults (troubleshooting), known (faults), drawings, compat.

Exit status 1 when a law is broken (floors, cycles, pinned lists); sizes and words are only told.
"""

import datetime
import sys
import tomllib

from tools.house import compat, cycles, drawings, faults, floors, known, map, pins, sizes, words
from tools.house.source import ROOT, modules


def report() -> int:
    """Print everything; return the number of broken laws."""
    files, house = modules(), tomllib.loads((ROOT / "house.toml").read_text())
    broken = 0
    contracts, output = floors.check()
    print("Floors")
    for name, kept in contracts.items():
        print(f"  {'kept' if kept else 'BROKEN':7}{name}")
    if not contracts or not all(contracts.values()):
        broken += 1
        print(output)
    print("Cycles")
    found = cycles.cycles(cycles.graph(files))
    print("".join(f"  BROKEN {' -> '.join(group)}\n" for group in found) or "  none\n", end="")
    print("Pinned lists")
    for name, now in pins.lists().items():
        before = pins.pinned(name)
        gone, new = sorted(set(before) - set(now)), sorted(set(now) - set(before))
        print(f"  {name}: {len(now)}" + "".join(f"\n    BROKEN gone: {line}" for line in gone), end="")
        print("".join(f"\n    BROKEN new: {line}" for line in new))
        broken += bool(gone or new)
    print(f"Sizes: {sizes.summary(files, house)}")
    for sentence in sizes.findings(files, house, datetime.date.today()):
        print(f"  {sentence}")
    print("Words")
    print("".join(f"  {sentence}\n" for sentence in words.findings(files, house)) or "  none\n", end="")
    return broken + len(found)


if __name__ == "__main__":
    writers = {"pin": pins, "map": map, "faults": faults, "known": known, "drawings": drawings, "compat": compat}
    asked = ["map", "faults", "known", "drawings", "compat"] if sys.argv[1:] == ["docs"] else sys.argv[1:]
    if asked and set(asked) <= set(writers):
        for name in asked:
            writers[name].write()
    else:
        sys.exit(1 if report() else 0)
