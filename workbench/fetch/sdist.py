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
        """See the port. What the local download cache holds under the pinned sha256 needs no network."""
        archive = self._downloads.get(source.sha256)
        sha256 = source.sha256
        if archive is None:
            archive, sha256 = self._download(source)
        return unpack(source, archive, sha256, into, wanted=wanted, limits=self._limits)

    def _download(self, source: Source) -> tuple[Path, str]:
        package = self._find(source)
        path, sha256 = self._downloads.put(self._stream(package.url, self._limits.download_bytes))
        promised = source.sha256 or (package.digests or {}).get("sha256", "")
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
                found = [p for p in found if (p.digests or {}).get("sha256") in (None, source.sha256)] or found
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
        from pypi_simple import ProjectPage

        url = f"{base.rstrip('/')}/{canonicalize_name(name)}/"
        if urlsplit(url).scheme == "file":
            file = _file_of(url) / "index.html"
            if not file.is_file():
                return None
            return ProjectPage.from_html(name, file.read_bytes()[: self._limits.page_bytes], base_url=url)
        from pypi_simple import ACCEPT_ANY

        with self._get(url, {"Accept": ACCEPT_ANY}) as answer:
            if answer.status_code == 404:
                return None
            _check_status(answer, f"the package index's page of {name}")
            data = b"".join(_capped(answer.iter_content(CHUNK), self._limits.page_bytes, f"the page of {name}"))
            if "json" in answer.headers.get("content-type", ""):
                import json

                try:
                    return ProjectPage.from_json_data(json.loads(data), base_url=answer.url)
                except ValueError as error:
                    raise WorldError(
                        f"the package index's page of {name} cannot be read: {error}", "try again"
                    ) from None
            return ProjectPage.from_html(name, data, base_url=answer.url, from_encoding=answer.encoding)

    def _stream(self, url: str, cap: int) -> Iterator[bytes]:
        if urlsplit(url).scheme == "file":
            try:
                with _file_of(url).open("rb") as local:
                    yield from _capped(iter(lambda: local.read(CHUNK), b""), cap, "the archive")
            except OSError as error:
                raise WorldError(f"the archive cannot be read: {error.strerror}", "check the index's folder") from None
            return
        with self._get(url, {"Accept-Encoding": "identity"}) as answer:
            _check_status(answer, "the archive")
            import requests
            import urllib3

            try:
                yield from _capped(answer.raw.stream(CHUNK, decode_content=False), cap, "the archive")
            except (urllib3.exceptions.HTTPError, requests.RequestException, OSError) as error:
                raise WorldError(f"the download broke off: {type(error).__name__}", "try again") from None

    def _get(self, url: str, headers: dict[str, str]) -> requests.Response:
        import requests

        if urlsplit(url).scheme not in ("http", "https"):
            raise UserError(f"an index address begins with {urlsplit(url).scheme!r}", "use https, http or file")
        try:
            return self._session.get(url, headers=headers, stream=True, timeout=self._settings.timeout_s)
        except requests.RequestException as error:
            raise WorldError(
                f"the package index does not answer: {type(error).__name__}",
                "check the network and `pip config list`; the recorded bytes of an earlier crawl need no network",
            ) from None

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


def _check_status(answer: requests.Response, what: str) -> None:
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
