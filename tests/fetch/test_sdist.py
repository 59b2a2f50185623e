"""Source distributions, from a real index on loopback, in both forms of the protocol."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from workbench.domain.errors import NotFound, UserError, WorkbenchError, WorldError
from workbench.fetch import index as client
from workbench.fetch.downloads import Downloads
from workbench.fetch.index import IndexSettings
from workbench.fetch.limits import Limits
from workbench.fetch.sdist import SdistFetcher
from workbench.ports.fetch import Fetched, Source

WANTED = ("*.rs", "Cargo.toml", "PKG-INFO")
Fetch = Callable[..., Fetched]


@pytest.fixture(params=[False, True], ids=["HTML", "JSON"])
def either(request: pytest.FixtureRequest, index):
    index.json = request.param
    return index


@pytest.fixture
def fetch(index, tmp_path: Path) -> Fetch:
    def fetch(version: str = "1.0", sha256: str = "", *, name: str = "demo", into: str = "into", **options) -> Fetched:
        (tmp_path / into).mkdir()
        indexes, links = options.pop("indexes", (index.url,)), options.pop("links", ())
        settings = IndexSettings(indexes, links, **options.pop("settings", {}))
        fetcher = SdistFetcher(Downloads(tmp_path / "downloads"), settings=lambda: settings, **options)
        return fetcher.fetch(Source("sdist", name, version, "", sha256), tmp_path / into, wanted=WANTED)

    return fetch


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_pinned_release_is_brought_and_what_is_not_wanted_is_left(either, fetch: Fetch, files, tmp_path: Path):
    listed = either.offer()
    done = fetch(sha256=digest(listed.data))
    assert done.files == ("Cargo.toml", "PKG-INFO", "src/lib.rs")
    assert {path: (tmp_path / "into" / path).read_bytes() for path in done.files} == {p: files[p] for p in done.files}
    assert done.provenance == {"sha256": digest(listed.data), "size": len(listed.data)}


def test_a_second_fetch_asks_nobody(either, fetch: Fetch):
    listed = either.offer()
    fetch(sha256=digest(listed.data))
    before = len(either.asked)
    assert fetch(sha256=digest(listed.data), into="again").files
    assert len(either.asked) == before


def test_a_damaged_download_is_not_used_again(either, fetch: Fetch, tmp_path: Path):
    listed = either.offer()
    fetch(sha256=digest(listed.data))
    (tmp_path / "downloads" / digest(listed.data)).write_bytes(b"damaged")
    assert fetch(sha256=digest(listed.data), into="again").files


def test_another_digest_than_the_pinned_one_is_refused_and_nothing_is_kept(either, fetch: Fetch, tmp_path: Path):
    either.offer()
    with pytest.raises(UserError, match=r"has sha256 .* but a{64} was expected"):
        fetch(sha256="a" * 64)
    assert list((tmp_path / "downloads").iterdir()) == []
    assert list((tmp_path / "into").iterdir()) == []


def test_another_digest_than_the_page_promises_is_refused_although_none_is_pinned(either, fetch: Fetch, tmp_path: Path):
    either.offer(sha256="b" * 64)
    with pytest.raises(UserError, match=r"but b{64} was expected"):
        fetch()
    assert list((tmp_path / "downloads").iterdir()) == []


def test_a_page_without_digests_is_enough_and_the_digest_is_recorded(either, fetch: Fetch):
    listed = either.offer(sha256=None)
    assert fetch().provenance["sha256"] == digest(listed.data)


def test_a_page_without_digests_does_not_weaken_the_pin(either, fetch: Fetch):
    either.offer(sha256=None)
    with pytest.raises(UserError, match=r"a{64} was expected"):
        fetch(sha256="a" * 64)


def test_a_digest_in_capitals_is_the_same_digest(either, fetch: Fetch):
    listed = either.offer()
    listed.sha256 = digest(listed.data).upper()
    assert fetch().files
    assert fetch(sha256=digest(listed.data), into="pinned").files


def test_a_yanked_release_is_brought_since_it_is_pinned(either, fetch: Fetch):
    either.offer(yanked="a mistake")
    assert fetch().files


def test_a_version_is_the_same_however_it_is_spelled(either, fetch: Fetch):
    either.offer("demo-1.0.0.tar.gz")
    assert fetch(version="1.0").files
    assert fetch(version="v1", into="other").files


def test_a_missing_version_names_the_newest_that_there_are(either, fetch: Fetch):
    for version in ("0.9", "1.10", "1.9", "1.2"):
        either.offer(f"demo-{version}.tar.gz")
    with pytest.raises(NotFound, match=r"no source distribution of version 2\.0\n.*1\.2, 1\.9, 1\.10"):
        fetch(version="2.0")


def test_a_release_of_wheels_alone_is_not_found(either, fetch: Fetch):
    either.offer("demo-1.0-py3-none-any.whl", b"")
    with pytest.raises(NotFound, match="no source distribution of demo"):
        fetch()


def test_a_project_that_is_not_there_is_not_found(either, fetch: Fetch):
    with pytest.raises(NotFound, match="no source distribution of nothing"):
        fetch(name="nothing")


def test_the_indexes_are_asked_in_order(either, fetch: Fetch):
    either.offer()
    nowhere = either.url.replace("simple", "elsewhere/simple")
    assert fetch(indexes=(nowhere, either.url)).files
    assert either.asked[0].startswith("/elsewhere")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/vnd.pypi.simple.v1+json", b"{"),
        ("application/vnd.pypi.simple.v1+json", b"[]"),
        ("application/vnd.pypi.simple.v1+json", b"[" * 100_000),
        ("application/vnd.pypi.simple.v1+json", b'{"meta": {"api-version": "9.0"}, "name": "demo", "files": []}'),
        ("application/vnd.pypi.simple.v1+json", b'{"meta": {"api-version": "1.0"}, "name": "demo", "files": [{}]}'),
        (
            "application/vnd.pypi.simple.v1+json",
            b'{"meta": {"api-version": "1.0"}, "name": "demo", "files": "http://localhost/x"}'.replace(
                b"://", b"://me:secret@"
            ),
        ),
        ("text/html", b'<html><head><meta name="pypi:repository-version" content="9.0"></head></html>'),
        ("text/html", b'<a href="http://[secret/demo-1.0.tar.gz">demo-1.0.tar.gz</a>'),
    ],
)
def test_a_page_that_cannot_be_read_is_the_worlds_fault(index, fetch: Fetch, kind: str, body: bytes):
    index.answers["/simple/demo/"] = (200, kind, body)
    with pytest.raises(WorldError, match=r"page of demo (?:cannot be read|has version)") as caught:
        fetch()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "error", "told"),
    [(500, WorldError, "HTTP 500"), (503, WorldError, "HTTP 503"), (401, UserError, "credentials")],
)
def test_an_index_that_refuses_is_told_as_it_is(index, fetch: Fetch, status: int, error: type[Exception], told: str):
    index.answers["/simple/demo/"] = (status, "text/plain", b"no")
    with pytest.raises(error, match=told):
        fetch()


def test_a_file_that_is_listed_but_missing_is_an_error(index, fetch: Fetch, tmp_path: Path):
    index.offer(link="../../files/gone-1.0.tar.gz")
    with pytest.raises(WorldError, match="archive is answered with HTTP 404"):
        fetch()
    assert list((tmp_path / "downloads").iterdir()) == []


@pytest.mark.parametrize("link", ["ftp://127.0.0.1/x/demo-1.0.tar.gz", "javascript:x/demo-1.0.tar.gz"])
def test_an_archive_comes_by_known_schemes_alone(index, fetch: Fetch, link: str):
    index.offer(link=link)
    with pytest.raises(UserError, match="use https, http or file"):
        fetch()


def test_an_index_that_is_not_there_is_the_worlds_fault(index, fetch: Fetch):
    with pytest.raises(WorldError, match="does not answer") as caught:
        fetch(indexes=("http://127.0.0.1:1/simple/".replace("://", "://user:secret@"),))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("what", ["page_bytes", "download_bytes"])
def test_more_than_a_limit_is_refused(either, fetch: Fetch, tmp_path: Path, what: str):
    either.offer()
    with pytest.raises(WorldError, match=r"is larger than 60 bytes"):
        fetch(limits=Limits(**{what: 60}))
    assert not (tmp_path / "downloads").exists() or list((tmp_path / "downloads").iterdir()) == []


def test_a_hostile_archive_is_a_refusal_not_an_error(either, fetch: Fetch):
    either.offer(data=b"<html>gone</html>" * 100)
    done = fetch()
    assert done.files == ()
    assert [refusal.rule for refusal in done.refusals] == ["corrupt"]


def test_a_folder_of_pages_is_an_index_too(index, fetch: Fetch, tmp_path: Path):
    listed = index.offer()
    (tmp_path / "pages" / "demo").mkdir(parents=True)
    (tmp_path / "pages" / "demo" / listed.name).write_bytes(listed.data)
    (tmp_path / "pages" / "demo" / "index.html").write_text(
        f'<a href="{listed.name}#sha256={digest(listed.data)}">{listed.name}</a>'
    )
    assert fetch(indexes=((tmp_path / "pages").as_uri(),)).files
    assert index.asked == []


@pytest.mark.parametrize("absolute", [False, True], ids=["relative links", "absolute links"])
def test_the_password_of_an_index_goes_to_its_own_host_and_into_no_message(
    either, fetch: Fetch, absolute: bool, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    either.password = "secret"
    either.offer(link=f"http://127.0.0.1:{either.port}/files/demo-1.0.tar.gz" if absolute else "")
    with_password = either.url.replace("://", "://user:secret@")
    done = fetch(indexes=(with_password,))
    assert done.files
    assert all(given.startswith("Basic ") for given in either.authorised)
    assert "secret" not in repr(done) + caplog.text
    for number, page in enumerate([(500, "text/html", b""), (200, "text/html", b'<a href="http://[x">y</a>')]):
        either.answers["/simple/demo/"] = page
        with pytest.raises(WorkbenchError) as caught:
            fetch(indexes=(with_password,), into=f"refused-{number}")
        assert "secret" not in str(caught.value) + caplog.text


def test_a_password_does_not_go_to_another_host(index, fetch: Fetch):
    index.offer(link=f"http://localhost:{index.port}/files/demo-1.0.tar.gz")
    assert fetch(indexes=(index.url.replace("://", "://user:secret@"),)).files
    assert index.authorised[0].startswith("Basic ")
    assert index.authorised[-1] == ""


@pytest.fixture
def wheels(tmp_path: Path, index) -> Path:
    """A folder of archives, as ``pip download`` leaves one: what an air-gapped machine has."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name in ("demo-1.0.tar.gz", "demo-0.9.tar.gz", "demo-1.0-py3-none-any.whl", "other-1.0.tar.gz", "notes.txt"):
        (folder / name).write_bytes(index.offer().data)
    index.pages.clear()
    return folder


def test_a_folder_of_archives_is_enough_and_no_index_is_asked(index, fetch: Fetch, wheels: Path):
    done = fetch(indexes=(), links=(wheels.as_uri(),))
    assert done.files
    assert done.provenance["sha256"] == digest((wheels / "demo-1.0.tar.gz").read_bytes())
    with pytest.raises(NotFound, match=r"no source distribution of version 2\.0") as caught:
        fetch("2.0", indexes=(), links=(wheels.as_uri(),), into="newer")
    assert caught.value.hint == "newest here: 0.9, 1.0"
    with pytest.raises(NotFound, match="find-links hold no source distribution of nothing") as caught:
        fetch(name="nothing", indexes=(), links=(wheels.as_uri(),), into="nothing")
    assert caught.value.hint.startswith("put nothing-1.0.tar.gz there")
    assert index.asked == []


@pytest.mark.parametrize("place", ["archive", "page", "folder of a page", "page on a host", "archive on a host"])
def test_every_place_that_the_client_takes_is_looked_at(index, fetch: Fetch, wheels: Path, tmp_path: Path, place: str):
    archive = wheels / "demo-1.0.tar.gz"
    page = tmp_path / "pages" / "all.html"
    page.parent.mkdir()
    # A server's listing may shorten the names that it shows.
    page.write_text(f'<a href="../wheels/other-1.0.tar.gz">x</a><a href="../wheels/{archive.name}">demo-1..&gt;</a>')
    index.answers["/all/"] = (200, "text/html", b'<a href="demo-1.0.tar.gz">demo</a>')
    index.answers["/all/demo-1.0.tar.gz"] = (200, "application/gzip", archive.read_bytes())
    host = index.url.replace("simple/", "all/")
    links = {
        "archive": archive.as_uri(),
        "page": page.as_uri(),
        "folder of a page": page.parent.as_uri(),
        "page on a host": host,
        "archive on a host": host + archive.name,
    }
    assert fetch(indexes=(), links=(links[place],), sha256=digest(archive.read_bytes())).files


def test_a_place_with_another_archive_than_the_pinned_one_is_passed_over(index, fetch: Fetch, wheels: Path):
    listed = index.offer()
    (wheels / "demo-1.0.tar.gz").write_bytes(b"built again by somebody")
    with pytest.raises(UserError, match=r"demo-1\.0\.tar\.gz has sha256 .* was expected"):
        fetch(indexes=(), links=(wheels.as_uri(),), sha256=digest(listed.data), into="nowhere")
    assert fetch(links=(wheels.as_uri(),), sha256=digest(listed.data)).files


def test_an_index_with_another_archive_than_the_pinned_one_is_passed_over(index, fetch: Fetch):
    listed = index.offer()
    first = index.url.replace("simple", "first")
    index.answers["/first/demo/"] = (200, "text/html", f'<a href="x/demo-1.0.zip#sha256={"a" * 64}">x</a>'.encode())
    assert fetch(indexes=(first, index.url), sha256=digest(listed.data)).files


@pytest.fixture
def secure(index, tmp_path: Path) -> str:
    """The index once more, over TLS with a certificate that nobody vouches for; its host and port."""
    import ssl
    import subprocess

    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run(
        [*made, "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    index.server.socket = context.wrap_socket(index.server.socket, server_side=True)
    return f"127.0.0.1:{index.port}"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_a_certificate_that_nobody_vouches_for_is_taken_of_a_trusted_host_alone(index, fetch: Fetch, secure: str):
    index.offer()
    url = f"https://{secure}/simple/"
    with pytest.raises(WorldError, match="does not answer: SSLError"):
        fetch(indexes=(url,), settings={"trusted_hosts": ("elsewhere",)})
    for number, trusted in enumerate((secure, "127.0.0.1")):
        assert fetch(indexes=(url,), settings={"trusted_hosts": (trusted,)}, into=f"trusted-{number}").files


@pytest.fixture
def no_client_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    import os

    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "dirs"))
    return monkeypatch


def test_the_index_is_the_one_that_the_installed_client_is_configured_for(no_client_settings, tmp_path: Path):
    settings = tmp_path / "pip.conf"
    settings.write_text(
        "[global]\nindex-url = http://127.0.0.1:1/first/\nextra-index-url = http://127.0.0.1:2/second/\ntimeout = 7\n"
    )
    no_client_settings.setenv("PIP_CONFIG_FILE", str(settings))
    found = client.discover()
    assert found.indexes == ("http://127.0.0.1:1/first/", "http://127.0.0.1:2/second/")
    assert found.timeout_s == 7.0


def test_the_environment_stands_above_the_clients_files(no_client_settings):
    no_client_settings.setenv("PIP_INDEX_URL", "http://127.0.0.1:3/simple/")
    assert client.discover().indexes[0] == "http://127.0.0.1:3/simple/"


def test_a_client_that_may_use_no_index_is_told_how_to_get_one(no_client_settings):
    no_client_settings.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(UserError, match=r"configured for no package index\n"):
        client.discover()
    no_client_settings.setenv("PIP_FIND_LINKS", "/not/there")
    with pytest.raises(UserError, match="no package index, and its find-links '/not/there' is not there"):
        client.discover()


def test_places_without_an_index_are_enough_for_the_client_and_so_for_us(
    no_client_settings, wheels: Path, tmp_path: Path
):
    settings = tmp_path / "pip.conf"
    settings.write_text(
        f"[global]\nno-index = true\nfind-links =\n    {wheels}\n    /not/there\n    ~/wheels\n    http://127.0.0.1:1/all/\n"
        "trusted-host = 127.0.0.1\n    mirror:8443\n"
    )
    no_client_settings.setenv("PIP_CONFIG_FILE", str(settings))
    found = client.discover()
    assert found.indexes == ()
    assert found.links == (wheels.as_uri(), wheels.as_uri(), "http://127.0.0.1:1/all/")
    assert found.trusted_hosts == ("127.0.0.1", "mirror:8443")


def test_the_places_of_the_environment_are_looked_at_before_the_index(no_client_settings, wheels: Path, tmp_path: Path):
    no_client_settings.setenv("PIP_FIND_LINKS", f"{wheels} http://127.0.0.1:1/all/")
    no_client_settings.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple/")
    assert client.discover().links == (wheels.as_uri(), "http://127.0.0.1:1/all/")
    (tmp_path / "into").mkdir()
    done = SdistFetcher(Downloads(tmp_path / "downloads")).fetch(
        Source("sdist", "demo", "1.0"), tmp_path / "into", wanted=WANTED
    )
    assert done.files


def test_a_client_with_a_broken_setting_says_so(no_client_settings, tmp_path: Path):
    (tmp_path / "pip.conf").write_text("no settings at all")
    no_client_settings.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    with pytest.raises(WorldError, match="pip"):
        client.discover()


def test_a_whole_fetch_finds_its_index_by_the_client(no_client_settings, index, tmp_path: Path):
    listed = index.offer()
    no_client_settings.setenv("PIP_INDEX_URL", index.url)
    (tmp_path / "into").mkdir()
    fetcher = SdistFetcher(Downloads(tmp_path / "downloads"))
    source = Source("sdist", "demo", "1.0", "", digest(listed.data))
    assert fetcher.fetch(source, tmp_path / "into", wanted=WANTED).files
