"""What the lint tests share: the list of files, C without comments, the verdict."""
import os
import re
import subprocess
import sys

SKIP = ("build/", ".git/", "tests/fuzz/corpus/", "tests/fixtures/", "tests/golden/")


def arguments():
    """SOURCE_DIR and BUILD_DIR, as every lint test gets them."""
    source = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("MW_SOURCE", ".")
    build = sys.argv[2] if len(sys.argv) > 2 else os.environ.get("MW_BUILD", "")
    os.chdir(source)
    return source, build


def files(*suffixes, skip=SKIP):
    """Tracked and new files, by suffix; outside git all files of the directory."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True
        ).stdout
    except FileNotFoundError:
        listed = ""
    if listed:
        names = listed.splitlines()
    else:
        names = [
            os.path.relpath(os.path.join(d, f))
            for d, _, fs in os.walk(".")
            for f in fs
            if not d.endswith("__pycache__")
        ]
    return sorted(
        n
        for n in set(names)
        if not n.startswith(skip)
        and (not suffixes or n.endswith(suffixes))
        and os.path.isfile(n)
    )


def read(name):
    with open(name, encoding="utf-8", errors="replace") as f:
        return f.read()


TOKEN = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)


def code(text, strings=False):
    """C text with comments (and strings, unless wanted) blanked; lines stay in place."""

    def blank(m):
        t = m.group(0)
        if strings and t[0] in "\"'":
            return t
        if t[0] == '"':
            return '""'
        return re.sub(r"[^\n]", " ", t)

    return TOKEN.sub(blank, text)


def line_of(text, at):
    return text.count("\n", 0, at) + 1


def finish(problems, checked, what):
    """Prints the problems and leaves with 1; with 1, too, if nothing was checked."""
    for p in problems:
        print(p)
    if not checked:
        print(f"nothing to check: no {what} found")
        sys.exit(1)
    if problems:
        print(f"{len(problems)} problem(s) in {checked} {what}")
        sys.exit(1)
    print(f"{checked} {what}: fine")
