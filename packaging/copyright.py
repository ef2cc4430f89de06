#!/usr/bin/env python3
"""Writes what the programs' licences ask to be told: ours, and those of every crate that is linked into them.

    python3 packaging/copyright.py debian    a debian/copyright (DEP-5)
    python3 packaging/copyright.py rpm       the licence expression of the RPM, on one line

Reads the crates' sources where cargo keeps them: it knows nothing by itself, so that a changed Cargo.lock changes
the file.
"""

import json
import pathlib
import re
import subprocess
import sys

# Where a crate offers several licences: the first of these.
PREFERRED = ["MIT", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Zlib", "Unicode-3.0", "Apache-2.0", "Unlicense", "BSL-1.0"]
# Files of a crate that may hold the text of a licence.
TEXTS = {
    "MIT": ["LICENSE-MIT*", "LICENCE-MIT*", "*MIT*", "LICENSE*", "LICENCE*", "COPYING*"],
    "Apache-2.0": ["LICENSE-APACHE*", "LICENSE*"],
}


def crates():
    """Name, version, licence, authors and directory of each crate that the programs link."""
    host = re.search(r"^host: (.*)$", run("rustc", "-vV"), re.M).group(1)
    tree = run("cargo", "tree", "--locked", "--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}", "--target", host)
    linked = {tuple(line.split()[:2]) for line in tree.splitlines() if line}
    metadata = json.loads(run("cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", host))
    for package in sorted(metadata["packages"], key=lambda package: (package["name"], package["version"])):
        if (package["name"], "v" + package["version"]) in linked and package["source"]:
            yield package


def run(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def choose(expression):
    """The licences that apply: each term of AND, of each OR the one preferred."""
    chosen = []
    for term in re.sub(r"[()]", "", expression.replace("/", " OR ")).split(" AND "):
        offered = [name.split(" WITH ")[0].strip() for name in term.split(" OR ")]
        known = [name for name in PREFERRED if name in offered]
        if not known:
            sys.exit(f"licence {expression!r}: none of {', '.join(PREFERRED)}")
        chosen.append(known[0])
    return list(dict.fromkeys(chosen))


def text_of(package, licence):
    """The text of a licence in the crate's sources, or None."""
    directory = pathlib.Path(package["manifest_path"]).parent
    for pattern in TEXTS.get(licence, ["*" + licence.split("-")[0].upper() + "*", "LICENSE*", "LICENCE*", "COPYING*"]):
        for path in sorted(directory.glob(pattern)):
            if path.is_file():
                return path.read_text(encoding="utf-8", errors="replace")
    return None


def holders(package, licences):
    """Lines of copyright in the crate's licence, else its authors."""
    lines = []
    for licence in licences:
        for line in (text_of(package, licence) or "").splitlines():
            line = line.strip()
            found = re.match(r"(?:Copyright|\(c\)|©)\s+(?:\(c\)|©)?\s*(.*\d{4}.*|.*[Aa]uthors.*|.*[Cc]ontributors.*)$", line, re.I)
            if found and "[yyyy]" not in line and "{yyyy}" not in line:
                lines.append(found.group(1).strip())
    names = [re.sub(r"\s*<.*>", "", author) for author in package["authors"]] or [f"the authors of {package['name']}"]
    # Some name a year alone.
    if not any(re.search("[A-Za-z]{2}", line) for line in lines):
        lines += names
    return list(dict.fromkeys(lines))


def paragraph(text):
    """Text as a DEP-5 field continues: one blank before each line, a dot on an empty one."""
    return "\n".join(" " + (line.rstrip() or ".") for line in text.strip().splitlines())


def without_holders(text):
    """The words of a licence, which are the same for all who use it."""
    lines = text.splitlines()
    kept = [line for line in lines if not re.match(r"\s*(copyright|\(c\)|©)\s", line, re.I)]
    text = "\n".join(kept).strip()
    return re.sub(r"^(The )?MIT License( \(MIT\))?\s*", "", text).strip()


def debian():
    our_text = pathlib.Path("LICENSE").read_text(encoding="utf-8")
    our_holder = re.search(r"^Copyright \(c\) (.*)$", our_text, re.M).group(1)
    print("Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/")
    print("Upstream-Name: rtp_cluster")
    print("Comment: After our own files those of every crate that is linked into the programs.")
    print()
    print(f"Files: *\nCopyright: {our_holder}\nLicense: BSD-2-Clause")
    texts = {"BSD-2-Clause": without_holders(our_text.split("\n", 1)[1])}
    print("\nFiles: rust-standard-library/*\nCopyright: The Rust Project Contributors\nLicense: MIT")
    for package in crates():
        licences = choose(package["license"] or "")
        name = " and ".join(licences)
        print(f"\nFiles: {package['name']}-{package['version']}/*")
        print("Copyright: " + "\n           ".join(holders(package, licences)))
        print(f"License: {name}")
        for licence in licences:
            text = text_of(package, licence)
            if licence == "Apache-2.0":
                text = "On Debian systems the text is in /usr/share/common-licenses/Apache-2.0."
            if text:
                texts.setdefault(licence, without_holders(text))
            elif licence not in texts:
                texts[licence] = None
    for licence, text in texts.items():
        if text is None:
            sys.exit(f"licence {licence}: no crate holds its text")
        print(f"\nLicense: {licence}\n{paragraph(text)}")


def rpm():
    licences = {"BSD-2-Clause"}
    for package in crates():
        licences.update(choose(package["license"] or ""))
    print(" AND ".join(sorted(licences)))


if __name__ == "__main__":
    {"debian": debian, "rpm": rpm}[sys.argv[1]]()
