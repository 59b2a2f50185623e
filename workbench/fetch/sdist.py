"""Source distributions from the package index that the installed Python client is configured for.

The simple-index protocol (PEP 503 as HTML, PEP 691 as JSON) through pypi-simple; indexes over HTTP or as a folder of
pages (``file:``). Pinned by version and sha256, downloaded in pieces up to a cap, unpacked by our own extractor. The
archive's build code is never run, and no address is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from packaging.utils import InvalidSdistFilename, canonicalize_name, parse_sdist_filename
from packaging.version import InvalidVersion, Version

from workbench.domain.errors import NotFound, UserError, WorldError
from workbench.fetch import index
from workbench.fetch.archive import unpack
from workbench.fetch.downloads import Downloads
from workbench.fetch.index import IndexSettings
from workbench.fetch.limits import LIMITS, Limits
from workbench.ports.fetch import Fetched, Source

if TYPE_CHECKING:
    import requests
    from pypi_simple import DistributionPackage, ProjectPage

CHUNK = 1 << 18


class SdistFetcher:
    def __init__(
        self,
        downloads: Downloads,
        *,
        settings: Callable[[], IndexSettings] = index.discover,
        limits: Limits = LIMITS,
    ) -> None:
        self._downloads = downloads
        self._discover = settings
        self._limits = limits

    def fetch(self, source: Source, into: Path, *, wanted: Sequence[str]) -> Fetched:
        """See the port. What the local download cache holds under the pinned sha256 needs no network. A release that
        was yanked is brought: its version is pinned (PEP 592)."""
        archive = self._downloads.get(source.sha256)
        sha256 = source.sha256
        if archive is None:
            archive, sha256 = self._download(source)
        return unpack(source, archive, sha256, into, wanted=wanted, limits=self._limits)

    def _download(self, source: Source) -> tuple[Path, str]:
        package = self._find(source)
        path, sha256 = self._downloads.put(self._stream(package.url, self._limits.download_bytes))
        promised = source.sha256 or (package.digests or {}).get("sha256", "").lower()
        if promised and sha256 != promised:
            self._downloads.drop(sha256)
            raise UserError(
                f"{package.filename} has sha256 {sha256}, but {promised} was expected",
                "do not use it: compare the pinned digest with the one that the project publishes",
            )
        return path, sha256

    def _find(self, source: Source) -> DistributionPackage:
        """The sdist of that version; the indexes are asked in order."""
        versions: set[str] = set()
        for url in self._settings.indexes:
            page = self._page(url, source.name)
            if page is None:
                continue
            found = [package for package in page.packages if _is_sdist_of(package.filename, source)]
            if source.sha256:
                found = [
                    p for p in found if (p.digests or {}).get("sha256", source.sha256).lower() == source.sha256
                ] or found
            if found:
                return min(found, key=lambda package: (not package.filename.endswith(".tar.gz"), package.filename))
            versions.update(p.version for p in page.packages if p.package_type == "sdist" and p.version)
        if not versions:
            raise NotFound(
                f"the package index has no source distribution of {source.name}",
                "check the spelling: pip index versions NAME",
            )
        newest = sorted(versions, key=_sort_key)[-3:]
        raise NotFound(
            f"{source.name} has no source distribution of version {source.version}", f"newest here: {', '.join(newest)}"
        )

    def _page(self, base: str, name: str) -> ProjectPage | None:
        url = f"{base.rstrip('/')}/{canonicalize_name(name)}/"
        what = f"the package index's page of {name}"
        if urlsplit(url).scheme == "file":
            file = _file_of(url) / "index.html"
            if not file.is_file():
                return None
            return _parsed(name, b"".join(self._local(file, self._limits.page_bytes, what)), "", url, what)
        from pypi_simple import ACCEPT_ANY

        with self._get(url, {"Accept": ACCEPT_ANY}) as answer:
            if answer.status_code == 404:
                return None
            _check_status(answer, what)
            data = b"".join(_capped(_unbroken(answer.iter_content(CHUNK)), self._limits.page_bytes, what))
            return _parsed(name, data, answer.headers.get("content-type", ""), answer.url, what)

    def _stream(self, url: str, cap: int) -> Iterator[bytes]:
        if urlsplit(url).scheme == "file":
            yield from self._local(_file_of(url), cap, "the archive")
            return
        with self._get(url, {"Accept-Encoding": "identity"}) as answer:
            _check_status(answer, "the archive")
            yield from _capped(_unbroken(answer.raw.stream(CHUNK, decode_content=False)), cap, "the archive")

    def _local(self, file: Path, cap: int, what: str) -> Iterator[bytes]:
        try:
            with file.open("rb") as local:
                yield from _capped(iter(lambda: local.read(CHUNK), b""), cap, what)
        except OSError as error:
            raise WorldError(f"{what} cannot be read: {error.strerror}", "check the index's folder") from None

    def _get(self, url: str, headers: dict[str, str]) -> requests.Response:
        import requests

        if urlsplit(url).scheme not in ("http", "https"):
            raise UserError(f"an index address begins with {urlsplit(url).scheme!r}", "use https, http or file")
        try:
            return self._session.get(
                url, headers=headers, stream=True, timeout=self._settings.timeout_s, auth=self._auth(url)
            )
        except (requests.RequestException, ValueError) as error:
            raise WorldError(
                f"the package index does not answer: {type(error).__name__}",
                "check the network and `pip config list`; the recorded bytes of an earlier crawl need no network",
            ) from None

    def _auth(self, url: str) -> tuple[str, str] | None:
        """The name and password that an index's own address holds, for files of its host whose links hold none."""
        asked = urlsplit(url)
        for index_url in map(urlsplit, self._settings.indexes):
            there = (index_url.scheme, index_url.hostname, index_url.port)
            if index_url.username is not None and there == (asked.scheme, asked.hostname, asked.port):
                return unquote(index_url.username), unquote(index_url.password or "")
        return None

    @cached_property
    def _settings(self) -> IndexSettings:
        return self._discover()

    @cached_property
    def _session(self) -> requests.Session:
        import requests

        session = requests.Session()
        session.headers["User-Agent"] = "workbench"
        session.max_redirects = 5
        settings = self._settings
        if settings.certificates:
            session.verify = settings.certificates
        if settings.client_certificate:
            session.cert = settings.client_certificate
        if settings.proxy:
            session.proxies = {"http": settings.proxy, "https": settings.proxy}
        return session


def _is_sdist_of(filename: str, source: Source) -> bool:
    try:
        name, version = parse_sdist_filename(filename)
        return name == canonicalize_name(source.name) and version == Version(source.version)
    except (InvalidSdistFilename, InvalidVersion):
        return False


def _sort_key(version: str) -> tuple[bool, Version | str]:
    try:
        return (True, Version(version))
    except InvalidVersion:
        return (False, version)


def _parsed(name: str, data: bytes, content_type: str, url: str, what: str) -> ProjectPage:
    """A page as HTML (PEP 503) or JSON (PEP 691). What is wrong with it is told without its text, which may hold
    addresses and credentials."""
    import json

    from pypi_simple import ProjectPage, UnsupportedRepoVersionError

    try:
        if "json" in content_type:
            return ProjectPage.from_json_data(json.loads(data), base_url=url)
        return ProjectPage.from_html(name, data, base_url=url)
    except UnsupportedRepoVersionError as error:
        raise WorldError(f"{what} has version {error.declared_version}", "upgrade pypi-simple") from None
    except (ValueError, RecursionError) as error:
        raise WorldError(
            f"{what} cannot be read: {type(error).__name__}", "see what answers there; try again"
        ) from None


def _unbroken(chunks: Iterator[bytes]) -> Iterator[bytes]:
    import requests
    import urllib3

    try:
        yield from chunks
    except (urllib3.exceptions.HTTPError, requests.RequestException, OSError) as error:
        raise WorldError(f"the download broke off: {type(error).__name__}", "try again") from None


def _check_status(answer: requests.Response, what: str) -> None:
    if answer.status_code in (401, 403):
        raise UserError(
            f"{what} is answered with HTTP {answer.status_code}", "check the credentials that pip uses: pip config list"
        )
    if not answer.ok:
        raise WorldError(f"{what} is answered with HTTP {answer.status_code}", "try again later")


def _capped(chunks: Iterator[bytes], cap: int, what: str) -> Iterator[bytes]:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > cap:
            raise WorldError(f"{what} is larger than {cap} bytes", "this is more than the crawl takes from anyone")
        yield chunk


def _file_of(url: str) -> Path:
    return Path(unquote(urlsplit(url).path))
