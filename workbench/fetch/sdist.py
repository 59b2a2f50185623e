"""Source distributions from the package index that the installed Python client is configured for.

The simple-index protocol (PEP 503 as HTML, PEP 691 as JSON) through pypi-simple; indexes over HTTP or as a folder of
pages (``file:``); and what pip calls find-links: folders of archives, pages that link to archives, archives. Pinned by
version and sha256, downloaded in pieces up to a cap, unpacked by our own extractor. The archive's build code is never
run, and no address is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urldefrag, urlsplit

from packaging.utils import InvalidSdistFilename, canonicalize_name, parse_sdist_filename
from packaging.version import InvalidVersion, Version

from workbench.domain import reading
from workbench.domain.errors import NotFound, UserError, WorldError
from workbench.domain.reading import BadInput, parse_json
from workbench.fetch import index
from workbench.fetch.archive import unpack
from workbench.fetch.downloads import Downloads, digest_of_file
from workbench.fetch.index import IndexSettings
from workbench.fetch.limits import LIMITS, Limits
from workbench.ports.fetch import Fetched, Source

if TYPE_CHECKING:
    import requests
    from pypi_simple import ProjectPage

CHUNK = 1 << 18


@dataclass(frozen=True, order=True)
class _Offer:
    """A source distribution that is there. The least is preferred: a .tar.gz, then by name."""

    is_odd: bool
    filename: str
    url: str
    sha256: str  # as the place promises it; empty: it does not
    version: Version


_PAGE = reading.Limits(size_bytes=LIMITS.page_bytes, values=5_000_000)


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
        offer = self._find(source)
        path, sha256 = self._downloads.put(self._stream(offer.url, self._limits.download_bytes))
        promised = source.sha256 or offer.sha256
        if promised and sha256 != promised:
            self._downloads.drop(sha256)
            raise UserError(
                f"{offer.filename} has sha256 {sha256}, but {promised} was expected",
                "do not use it: compare the pinned digest with the one that the project publishes",
            )
        return path, sha256

    def _find(self, source: Source) -> _Offer:
        """The sdist of that version; the places are asked in order, and one that is known to hold another archive than
        the pinned one is only taken (and refused) where no other has it."""
        versions: set[Version] = set()
        other: _Offer | None = None
        for offers in self._places(source):
            found = [offer for offer in offers if offer.version == _version(source.version)]
            fitting = [offer for offer in found if source.sha256 in ("", offer.sha256) or not offer.sha256]
            if fitting:
                return min(fitting)
            other = other or min(found, default=None)
            versions.update(offer.version for offer in offers)
        if other:
            return other
        if not versions:
            has_index = bool(self._settings.indexes)
            raise NotFound(
                f"the package index has no source distribution of {source.name}"
                if has_index
                else f"pip may use no index, and its find-links hold no source distribution of {source.name}",
                "check the spelling: pip index versions NAME"
                if has_index
                else f"put {source.name}-{source.version}.tar.gz there, or let pip use an index: pip config list",
            )
        newest = ", ".join(map(str, sorted(versions)[-3:]))
        raise NotFound(
            f"{source.name} has no source distribution of version {source.version}", f"newest here: {newest}"
        )

    def _places(self, source: Source) -> Iterator[list[_Offer]]:
        """By place, the project's source distributions there."""
        for url in self._settings.links:
            yield self._linked(url, source)
        for url in self._settings.indexes:
            yield self._offers(self._page(f"{url.rstrip('/')}/{canonicalize_name(source.name)}/", source.name), source)

    def _linked(self, url: str, source: Source) -> list[_Offer]:
        """What a find-links place has: a folder's archives and pages, a page's links, or one archive."""
        plain, fragment = urldefrag(url)
        if urlsplit(url).scheme != "file" or not _file_of(plain).is_dir():
            one = _offer(_last(plain), plain, _sha256_in(fragment), source)
            return [one] if one else self._offers(self._page(plain, source.name), source)
        found = []
        for file in sorted(_file_of(plain).iterdir()):
            if file.suffix in (".html", ".htm"):
                found += self._offers(self._page(file.as_uri(), source.name), source)
            elif file.is_file() and (offer := _offer(file.name, file.as_uri(), "", source)):
                asked = source.sha256 and offer.version == _version(source.version)
                found.append(replace(offer, sha256=digest_of_file(file)) if asked else offer)
        return found

    def _offers(self, page: ProjectPage | None, source: Source) -> list[_Offer]:
        packages = page.packages if page else []
        offers = (
            _offer(_last(package.url), package.url, digest, source)
            or _offer(package.filename, package.url, digest, source)
            for package in packages
            for digest in ((package.digests or {}).get("sha256", "").lower(),)
        )
        return [offer for offer in offers if offer]

    def _page(self, url: str, name: str) -> ProjectPage | None:
        """The page at ``url``, or None where there is none."""
        what = f"the package index's page of {name}"
        if urlsplit(url).scheme == "file":
            file = _file_of(url) / "index.html" if url.endswith("/") else _file_of(url)
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
        for host in settings.trusted_hosts:
            for prefix in (f"https://{host}/",) if ":" in host else (f"https://{host}/", f"https://{host}:"):
                session.mount(prefix, _unverified())
        if settings.certificates:
            session.verify = settings.certificates
        if settings.client_certificate:
            session.cert = settings.client_certificate
        if settings.proxy:
            session.proxies = {"http": settings.proxy, "https": settings.proxy}
        return session


def _offer(filename: str, url: str, sha256: str, source: Source) -> _Offer | None:
    """None for what is no source distribution of that project."""
    try:
        name, version = parse_sdist_filename(filename)
    except (InvalidSdistFilename, InvalidVersion):
        return None
    if name != canonicalize_name(source.name):
        return None
    return _Offer(not filename.endswith(".tar.gz"), filename, url, sha256, version)


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


def _last(url: str) -> str:
    return unquote(urlsplit(url).path.rpartition("/")[2])


def _sha256_in(fragment: str) -> str:
    name, _, digest = fragment.partition("=")
    return digest.lower() if name == "sha256" else ""


def _parsed(name: str, data: bytes, content_type: str, url: str, what: str) -> ProjectPage:
    """A page as HTML (PEP 503) or JSON (PEP 691). What is wrong with it is told without its text, which may hold
    addresses and credentials."""

    from pypi_simple import ProjectPage, UnsupportedRepoVersionError

    try:
        if "json" in content_type:
            return ProjectPage.from_json_data(parse_json(data, _PAGE), base_url=url)
        return ProjectPage.from_html(name, data, base_url=url)
    except UnsupportedRepoVersionError as error:
        raise WorldError(f"{what} has version {error.declared_version}", "upgrade pypi-simple") from None
    except (ValueError, KeyError, TypeError, AttributeError, BadInput) as error:
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


def _unverified() -> requests.adapters.HTTPAdapter:
    """For a host that pip is told to trust, and for no other that it may lead to."""
    import requests
    import urllib3

    urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)

    class Unverified(requests.adapters.HTTPAdapter):
        def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
            super().cert_verify(conn, url, False, cert)

    return Unverified()


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
