"""Check that the docs say what the code does; `make docs-check` runs this.

- `docs/cli.md` is what the commands' help makes of it (`--write` writes it)
- every relative link in `README.md`, `CHANGELOG.md` and `docs/` leads to a file, and
  to a heading of it if it names one
- every `voxpanel ...` in a ```console block is a command with options that exist

    python scripts/check_docs.py [--write]
"""

import argparse
import difflib
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from cli_docs import cli_docs, commands

ROOT = Path(__file__).parent.parent
CLI_PAGE = Path("docs", "cli.md")
FENCE = re.compile(r"^(```+|~~~+)(\w*)[^\n]*\n(.*?)^\1\s*$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)|^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
HEADING = re.compile(r"^#+\s+(.+?)\s*#*$", re.MULTILINE)
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:")  # https:, mailto:
SHELL = {"|", "||", "&&", ";", ">", ">>", "2>", "<"}  # what ends a command's own words


def main() -> int:
    """Run every check from the repository's root; return the exit status."""
    parser = argparse.ArgumentParser(description="Check the docs against the code.")
    parser.add_argument("--write", action="store_true", help=f"write {CLI_PAGE} first")
    if parser.parse_args().write:
        (ROOT / CLI_PAGE).write_text(cli_docs(), encoding="utf-8")
    problems = list(check(ROOT))
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"docs: {len(problems)} problems" if problems else "docs: in order")
    return 1 if problems else 0


def check(root: Path) -> Iterator[str]:
    """Yield every problem in words that say how to mend it."""
    yield from check_cli_page(root)
    for path in pages(root):
        if not path.exists():
            yield f"{path.relative_to(root)}: not there; write it"
            continue
        text = path.read_text(encoding="utf-8")
        where = str(path.relative_to(root))
        yield from (f"{where}: {problem}" for problem in check_links(path, text))
        yield from (f"{where}: {problem}" for problem in check_commands(text))


def pages(root: Path) -> list[Path]:
    """List the pages that are checked."""
    return [root / "README.md", root / "CHANGELOG.md", *sorted((root / "docs").rglob("*.md"))]


def check_cli_page(root: Path) -> Iterator[str]:
    """Compare `docs/cli.md` with what the code says now."""
    path = root / CLI_PAGE
    found = path.read_text(encoding="utf-8") if path.exists() else ""
    wanted = cli_docs()
    if found != wanted:
        difference = difflib.unified_diff(
            found.splitlines(), wanted.splitlines(), f"{CLI_PAGE}", "the code", lineterm="", n=1
        )
        yield "\n".join(
            [f"{CLI_PAGE}: differs; run python scripts/check_docs.py --write", *difference]
        )


def check_links(page: Path, text: str) -> Iterator[str]:
    """Yield the relative links that lead nowhere."""
    prose = CODE.sub("", FENCE.sub("", text))
    for match in LINK.finditer(prose):
        target = match[1] or match[2]
        if ELSEWHERE.match(target):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        if not path.exists():
            yield f"link to {target}: there is no {name} beside the page; mend the link"
        elif anchor and path.suffix == ".md" and anchor not in anchors(path.read_text("utf-8")):
            yield f"link to {target}: no heading of that page makes #{anchor}; mend the link"


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them.

    A heading that occurs again gets `-1`, `-2`, ...
    """
    found: set[str] = set()
    for match in HEADING.finditer(FENCE.sub("", text)):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", match[1])
        base = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        anchor, n_before = base, 0
        while anchor in found:
            n_before += 1
            anchor = f"{base}-{n_before}"
        found.add(anchor)
    return found


def check_commands(text: str) -> Iterator[str]:
    """Yield the commands and options in console blocks that do not exist."""
    for match in FENCE.finditer(text):
        if match[2] == "console":
            for line in command_lines(match[3]):
                yield from check_command(line)


def command_lines(block: str) -> list[str]:
    """Return the commands of a console block: the lines after `$`, or all if none has one."""
    lines = block.replace("\\\n", " ").splitlines()
    typed = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return typed or lines


def check_command(line: str) -> Iterator[str]:
    """Yield what is wrong with one command line, if it is one of ours."""
    words = shlex.split(line, comments=True)
    own = words[: next((place for place, word in enumerate(words) if word in SHELL), len(words))]
    if len(own) < 2 or own[0] != "voxpanel" or own[1].startswith("-"):
        return
    command = commands().get(own[1])
    if command is None:
        yield f"`{line.strip()}`: there is no command {own[1]}; known are {', '.join(commands())}"
        return
    known = {"-h", "--help"}.union(*(parameter.opts for parameter in command.params))
    for word in own[2:]:
        option = word.partition("=")[0]
        if re.match(r"--?[a-z]", option) and option not in known:
            yield f"`{line.strip()}`: voxpanel {own[1]} has no option {option}"


if __name__ == "__main__":
    sys.exit(main())
