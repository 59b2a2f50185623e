"""Licences by expression, by text and by place; what is unknown is rejected."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.corpus import cargo
from workbench.corpus.rows import PackageRow
from workbench.stages.filter import licensing
from workbench.stages.filter.licensing import PackageLicenses, Policy
from workbench.stages.filter.params import LICENSES

POLICY = Policy(LICENSES)


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True), ("mit", True), ("Apache-2.0 OR MIT", True), ("MIT/Apache-2.0", True),
        ("GPL-3.0-only OR MIT", True),
        ("MIT AND Apache-2.0", True), ("MIT AND GPL-3.0-only", False), ("(MIT OR GPL-2.0-only) AND BSD-3-Clause", True),
        ("(MIT AND GPL-2.0-only) OR AGPL-3.0-only", False), ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False), ("MIT WITH LLVM-exception", False),
        ("GPL-3.0-or-later", False),
        ("MPL-2.0", False), ("LicenseRef-Own", False),
    ],
)  # fmt: skip
def test_an_expression_is_allowed_by_its_logic(expression: str, allowed: bool):
    license, rank = POLICY.judge(expression)
    assert (rank is not None) is allowed
    assert license or expression == "LicenseRef-Own"


@pytest.mark.parametrize(
    "expression", ["", "MIT OR", "Commercial", "MIT or so", "((MIT)", "x" * 300, "MIT AND AND MIT", "🦀"]
)
def test_what_is_no_expression_is_not_guessed(expression: str):
    assert POLICY.judge(expression) == ("", None)


@given(st.text(max_size=60))
def test_any_text_is_an_expression_or_is_not(text: str):
    license, rank = POLICY.judge(text)
    assert rank is None or license


def test_of_alternatives_the_best_counts_and_of_conditions_the_worst():
    ranks = {each: POLICY.judge(each)[1] for each in ("MIT", "ISC", "MIT OR ISC", "MIT AND ISC")}
    assert ranks["MIT OR ISC"] == ranks["MIT"]
    assert ranks["MIT AND ISC"] == ranks["ISC"]


def test_a_text_is_told_by_what_it_says_not_by_its_name(tmp_path: Path, mit: str):
    (tmp_path / "LICENSE").write_text(mit)
    assert licensing.identify(tmp_path / "LICENSE") == "MIT"
    (tmp_path / "OTHER").write_text("All rights reserved. Ask us first.\n" * 20)
    assert licensing.identify(tmp_path / "OTHER") == ""
    (tmp_path / "EMPTY").write_text("")
    assert licensing.identify(tmp_path / "EMPTY") == ""
    (tmp_path / "BIG").write_bytes(b"x" * (licensing.TEXT_BYTES + 1))
    assert licensing.identify(tmp_path / "BIG") == ""
    (tmp_path / "BINARY").write_bytes(bytes(range(256)) * 20)
    assert licensing.identify(tmp_path / "BINARY") == ""


APACHE = (Path(__file__).parents[3] / "LICENSE").read_text()
APACHE_SECTION_6 = """
      except as required for reasonable and customary use in describing the
      origin of the Work and reproducing the content of the NOTICE file."""
PIXAR_SECTION_6 = """ and its affiliates,
      except as required to comply with Section 4(c) of the License and to
      reproduce the content of the NOTICE file."""


def test_apaches_text_without_its_appendix_is_apaches_and_pixars_is_pixars(tmp_path: Path):
    terms = APACHE[: APACHE.index("   APPENDIX: How to apply")]
    (tmp_path / "LICENSE-APACHE").write_text(terms)
    assert licensing.identify(tmp_path / "LICENSE-APACHE") == "Apache-2.0"
    assert "Licensor," + APACHE_SECTION_6 in terms
    (tmp_path / "LICENSE-PIXAR").write_text(terms.replace("," + APACHE_SECTION_6, PIXAR_SECTION_6))
    assert licensing.identify(tmp_path / "LICENSE-PIXAR") == "Pixar"


def rule(
    tmp_path: Path,
    folder: str,
    *,
    declared: str = "",
    texts: Mapping[str, str] = {},
    rule: str = "agree",
    kind: str = "path",
    **manifests: str,
) -> licensing.Ruling:
    for name, text in manifests.items():
        place = tmp_path / name.replace("__", "/").replace("root", "")
        place.mkdir(parents=True, exist_ok=True)
        (place / "Cargo.toml").write_text(text)
    row = PackageRow("p", "p", "1", kind, declared, "", 0, "", 0, sorted(texts))
    return PackageLicenses(tmp_path, row, texts, POLICY, rule).ruling(folder)


def test_the_nearest_declaration_counts(tmp_path: Path):
    manifests = {"root": '[package]\nlicense = "GPL-3.0-only"\n', "a__b": '[package]\nlicense = "MIT"\n'}
    assert rule(tmp_path, "a/b/src", declared="Apache-2.0", **manifests).license == "MIT"
    above = rule(tmp_path, "a/src", declared="Apache-2.0", **manifests)
    assert above.drop is not None
    assert "GPL-3.0-only" in above.drop.detail


def test_a_manifest_may_inherit_from_its_workspace(tmp_path: Path):
    manifests = {"root": '[workspace.package]\nlicense = "ISC"\n', "a": "[package]\nlicense.workspace = true\n"}
    assert rule(tmp_path, "a/src", **manifests).license == "ISC"


ROOT_MIT = {"root": '[package]\nlicense = "MIT"\n'}
WORKSPACE = '[workspace.package]\nlicense = "MIT"\nlicense-file = "EULA"\n'


@pytest.mark.parametrize(
    ("manifest", "texts", "license"),
    [
        # it names a text: that text decides, wherever it lies and whatever stands beside it
        ('license-file = "LICENSE"', {"LICENSE": "MIT", "sub/LICENSE": ""}, ""),
        ('license-file = "LICENSE"', {"LICENSE": "MIT"}, ""),
        ('license-file = "EULA"', {"LICENSE": "MIT", "sub/LICENSE": "MIT"}, ""),
        ('license-file = "LICENSE"', {"sub/LICENSE": "", "sub/LICENSE-MIT": "MIT"}, ""),
        ('license-file = "LICENSE"', {"LICENSE": "MIT", "sub/LICENSE": "ISC"}, "ISC"),
        ('license-file = "../LICENSE"', {"LICENSE": "ISC"}, "ISC"),
        ('license-file = "../../LICENSE"', {"LICENSE": "ISC"}, ""),
        ("license-file = 3", {}, ""),
        ('license = "ISC"\nlicense-file = "LICENSE"', {"sub/LICENSE": "ISC"}, "ISC"),
        # it says nothing, or nothing that can be read: the crate above does not speak for it, the texts do
        ('name = "sub"', {}, ""),
        ('name = "sub"', {"LICENSE": "ISC"}, "ISC"),
        ('license = ""', {}, ""),
        ("license = 3", {}, ""),
        ("license = [no TOML", {}, ""),
        ("#" * cargo.LIMITS.size_bytes, {}, ""),
        # it inherits what it asks for, from the nearest workspace
        ("license.workspace = true", {}, ""),
        ("license.workspace = true\n" + WORKSPACE, {}, "MIT"),
        ("license.workspace = true\n[workspace]", {}, ""),
        ("license-file.workspace = true\n" + WORKSPACE, {}, ""),
        ("license-file.workspace = true\n" + WORKSPACE, {"sub/EULA": "ISC"}, "ISC"),
        ("license-file.workspace = false\n" + WORKSPACE, {}, ""),
    ],
)
def test_a_crate_has_not_the_licence_of_the_crate_above_it(
    tmp_path: Path, manifest: str, texts: dict[str, str], license: str
):
    for table in ("package", "project"):
        found = rule(tmp_path, "sub/src", declared="MIT", texts=texts, sub=f"[{table}]\n{manifest}\n", **ROOT_MIT)
        assert found.license == license
        assert (found.drop.detail if found.drop else "") == ("" if license else "unknown")


def test_only_an_sdists_metadata_speaks_for_a_crate_in_it_that_says_nothing(tmp_path: Path):
    silent = {"sub": '[package]\nname = "sub"\n', "told": '[package]\nlicense-file = "LICENSE"\n'}
    assert rule(tmp_path, "sub/src", declared="ISC", kind="sdist", **silent, **ROOT_MIT).license == "ISC"
    assert rule(tmp_path, "told/src", declared="ISC", kind="sdist", **silent, **ROOT_MIT).license == ""
    for kind in ("path", "git", "crate"):
        assert rule(tmp_path, "sub/src", declared="ISC", kind=kind, **silent, **ROOT_MIT).license == ""


def test_the_packages_metadata_speaks_for_its_root_crate_and_for_what_is_in_no_crate(tmp_path: Path):
    assert rule(tmp_path, "src", declared="ISC", root='[package]\nname = "root"\n').license == "ISC"
    assert rule(tmp_path, "src", declared="ISC", root='[workspace]\nmembers = ["a"]\n').license == "ISC"
    assert rule(tmp_path, "a/src", declared="ISC").license == "ISC"


def test_a_manifest_inherits_from_the_nearest_workspace_alone(tmp_path: Path):
    manifests = {"root": WORKSPACE, "a": "[workspace]\n", "a__b": "[package]\nlicense.workspace = true\n"}
    assert rule(tmp_path, "a/b/src", **manifests).license == ""


@pytest.mark.parametrize(
    ("declared", "texts", "how", "verdict"),
    [
        ("MIT", {"LICENSE": "MIT"}, "agree", ""),
        ("MIT", {}, "agree", ""),
        ("MIT", {"LICENSE": ""}, "agree", "declared MIT, but LICENSE is no known text"),
        ("MIT", {"LICENSE": ""}, "ignore", ""),
        ("MIT", {"LICENSE": ""}, "require", "no text of MIT"),
        ("MIT", {"LICENSE": "GPL-3.0"}, "agree", "declared MIT, but the text is GPL-3.0"),
        ("MIT", {"LICENSE": "GPL-3.0"}, "ignore", ""),
        ("MIT", {}, "require", "no text of MIT"),
        ("MIT", {"LICENSE": "MIT"}, "require", ""),
        ("Apache-2.0 OR MIT", {"LICENSE-MIT": "MIT", "LICENSE-APACHE": "Apache-2.0"}, "require", ""),
        ("", {"LICENSE": "MIT"}, "agree", ""),
        ("", {"LICENSE": "GPL-3.0-only"}, "agree", "not allowed: GPL-3.0-only"),
        ("", {}, "ignore", "unknown"),
        ("Proprietary", {}, "agree", "not an SPDX expression: Proprietary"),
    ],
)
def test_texts_agree_decide_or_contradict(tmp_path: Path, declared: str, texts: dict[str, str], how: str, verdict: str):
    found = rule(tmp_path, "src", declared=declared, texts=texts, rule=how)
    assert (found.drop.detail if found.drop else "") == verdict


UNKNOWN = "declared MIT, but src/LICENSE is no known text"


@pytest.mark.parametrize(
    ("declared", "texts", "verdict"),
    [
        # a notice that is no known text hides none above it, and says nothing itself
        ("MIT", {"LICENSE": "GPL-3.0-only", "src/NOTICE": ""}, "declared MIT, but the text is GPL-3.0-only"),
        ("MIT", {"LICENSE": "GPL-3.0-only", "src/Copyright.txt": ""}, "declared MIT, but the text is GPL-3.0-only"),
        ("MIT", {"LICENSE": "", "src/NOTICE": ""}, "declared MIT, but LICENSE is no known text"),
        ("MIT", {"LICENSE": "MIT", "NOTICE": "", "src/COPYRIGHT": ""}, ""),
        ("MIT", {"src/NOTICE": ""}, ""),
        ("", {"src/NOTICE": ""}, "unknown"),
        ("", {"LICENSE": "GPL-3.0-only", "src/NOTICE": ""}, "not allowed: GPL-3.0-only"),
        ("", {"LICENSE": "MIT", "src/NOTICE": ""}, ""),
        # one that is a known text counts as such
        ("MIT", {"LICENSE": "MIT", "src/NOTICE": "GPL-3.0-only"}, "declared MIT, but the text is GPL-3.0-only"),
        # any other text that is not known contradicts what is declared, however it is called
        ("MIT", {"LICENSE": "MIT", "src/LICENSE": ""}, UNKNOWN),
        ("MIT", {"LICENSE": "MIT", "src/licence.md": ""}, UNKNOWN.replace("LICENSE", "licence.md")),
        ("MIT", {"LICENSE": "MIT", "src/COPYING": ""}, UNKNOWN.replace("LICENSE", "COPYING")),
        ("MIT", {"src/LICENSE": "", "src/NOTICE": "MIT"}, UNKNOWN),
        # beside one that agrees it may say that one may choose
        ("MIT", {"src/LICENSE": "", "src/LICENSE-MIT": "MIT"}, ""),
        ("MIT OR ISC", {"src/LICENSE": "", "src/LICENSE-MIT": "MIT", "src/LICENSE-ISC": "ISC"}, ""),
        ("MIT", {"src/LICENSE": "", "src/COPYING": "ISC"}, "declared MIT, but the text is ISC"),
        # nothing is declared
        ("", {"src/LICENSE": "", "src/LICENSE-MIT": "MIT"}, "unknown"),
        ("", {"LICENSE": "MIT", "src/LICENSE": ""}, "unknown"),
    ],
)
def test_a_text_that_is_not_known_is_no_consent(tmp_path: Path, declared: str, texts: dict[str, str], verdict: str):
    found = rule(tmp_path, "src/inner", declared=declared, texts=texts)
    assert (found.drop.detail if found.drop else "") == verdict


GPL = "declared MIT, but the text is GPL-3.0-only"


@pytest.mark.parametrize(
    ("declared", "texts", "verdict"),
    [
        ("MIT", {"LICENSE": "MIT", "COPYING": "GPL-3.0-only"}, GPL),
        ("MIT", {"LICENSE": "MIT", "NOTICE": "GPL-3.0-only"}, GPL),
        ("MIT", {"LICENSE-MIT": "MIT", "LICENSE-GPL": "GPL-3.0-only", "LICENSE": ""}, GPL),
        ("MIT", {"LICENSE-MIT": "MIT", "LICENSE-ISC": "ISC", "LICENSE-GPL": "GPL-3.0-only"}, GPL),
        ("MIT", {"LICENSE": "MIT", "LICENSE-OWN": "no SPDX"}, "declared MIT, but the text is no SPDX"),
        ("MIT", {"LICENSE": "ISC", "COPYING": "GPL-3.0-only"}, GPL.replace("GPL-3.0-only", "GPL-3.0-only, ISC")),
        ("", {"LICENSE": "MIT", "COPYING": "GPL-3.0-only"}, "not allowed: GPL-3.0-only AND MIT"),
        # allowed ones beside it are no hindrance, nor are alternatives that are declared
        ("MIT", {"LICENSE-MIT": "MIT", "LICENSE-APACHE": "Apache-2.0"}, ""),
        ("MIT OR Apache-2.0", {"LICENSE-MIT": "MIT", "LICENSE-APACHE": "Apache-2.0"}, ""),
        ("MIT OR Apache-2.0", {"LICENSE-MIT": "MIT", "LICENSE-APACHE": "Apache-2.0", "LICENSE": "", "NOTICE": ""}, ""),
        ("MIT OR GPL-3.0-only", {"LICENSE": "MIT", "COPYING": "GPL-3.0-only"}, ""),
        ("MIT OR GPL-3.0-or-later", {"LICENSE": "MIT", "COPYING": "GPL-3.0-only"}, ""),
        ("MIT OR GPL-3.0+", {"LICENSE": "MIT", "COPYING": "GPL-3.0-only"}, ""),
        ("MIT OR GPL-2.0-only", {"LICENSE": "MIT", "COPYING": "GPL-3.0-only"}, "… GPL-3.0-only"),
        ("MIT OR LGPL-3.0-only", {"LICENSE": "MIT", "COPYING": "GPL-3.0-only"}, "… GPL-3.0-only"),
        ("Apache-2.0 WITH LLVM-exception", {"LICENSE": "Apache-2.0"}, ""),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", {"LICENSE-MIT": "MIT", "LICENSE-UNICODE": "Unicode-3.0"}, ""),
    ],
)
def test_one_text_that_agrees_does_not_excuse_another(
    tmp_path: Path, declared: str, texts: dict[str, str], verdict: str
):
    found = rule(tmp_path, "src", declared=declared, texts=texts)
    assert (found.drop.detail if found.drop else "") == verdict.replace("…", f"declared {declared}, but the text is")
    if declared:
        assert rule(tmp_path, "src", declared=declared, texts=texts, rule="ignore").drop is None


OWN = "All rights reserved. No licence of any kind is granted.\n"


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("{mit}\nend of terms and conditions\n\nParts are derived from others, licensed as follows:\n{own}", True),
        ("{mit}\n    =====\n{own}", True),
        ("{mit}\n{own}", False),
        ("{own}\n-----\n{mit}", False),
        ("{own}", False),
        ("\n" * licensing.TEXT_BYTES, False),
        ("{mit}\n-----\n" + "x" * licensing.TEXT_BYTES, False),
    ],
)
def test_a_file_of_several_texts_agrees_by_the_one_it_begins_with(tmp_path: Path, mit: str, text: str, allowed: bool):
    (tmp_path / "LICENSE").write_text(text.format(mit=mit, own=OWN * 30))
    assert licensing.identify(tmp_path / "LICENSE") == ""
    found = rule(tmp_path, "src", declared="MIT", texts={"LICENSE": ""})
    assert (found.drop is None) is allowed
    assert not allowed or found.evidence == "package metadata; LICENSE begins with MIT"
    assert rule(tmp_path, "src", texts={"LICENSE": ""}).drop is not None
    assert rule(tmp_path, "src", declared="MIT", texts={"LICENSE": ""}, rule="require").drop is not None


def test_a_text_in_a_folder_holds_below_it_alone(tmp_path: Path):
    texts = {"LICENSE": "MIT", "vendored/LICENSE": "GPL-3.0"}
    assert rule(tmp_path, "src", declared="MIT", texts=texts).drop is None
    assert rule(tmp_path, "vendored/x/src", declared="MIT", texts=texts).drop is not None
