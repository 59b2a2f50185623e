"""Python modules straight from the files of a tree: no checkout, and as many versions side by side as there are trees.

The modules of one tree live under a package of their own, ``agents@<tree>``, so two versions never meet in
``sys.modules``. Inside them ``import agents.x`` means their own tree, and ``workbench.sdk`` is all of workbench that
they may import. What they import from the standard library or other packages is shared with everybody, as usual. Files
beside them are read by ``importlib.resources.files(__package__)``. What they print goes to standard error: standard
output may be a protocol's. Only a Runner that a person started, and the job in the sandbox, load anything.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import linecache
import sys
import threading
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from workbench.domain.errors import UserError
from workbench.domain.ids import ObjectId
from workbench.runner.resources import Resources
from workbench.runner.source import Source

PACKAGE = "agents"
MAX_SOURCE = 1 << 20  # bytes of one module
_lock = threading.RLock()


class TreePackage(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """The package ``agents@<tree>``, found and loaded from the files of a tree."""

    def __init__(self, source: Source) -> None:
        self.name = f"{PACKAGE}@{source.tree}"
        self._files = source.files
        self._folders = {path[:at] for path in source.files for at, char in enumerate(path) if char == "/"}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.name and not fullname.startswith(self.name + "."):
            return None
        found = self._locate(fullname)
        if found is None:
            return None
        file, is_package = found
        spec = importlib.machinery.ModuleSpec(fullname, self, origin=f"<{self.name}>/{file}", is_package=is_package)
        spec.loader_state = file
        return spec

    def _locate(self, fullname: str) -> tuple[str, bool] | None:
        path = fullname[len(self.name) :].lstrip(".").replace(".", "/")
        for file, is_package in ((f"{path}/__init__.py".lstrip("/"), True), (f"{path}.py", False)):
            if file != ".py" and file in self._files:
                return file, is_package
        # agents/ needs no __init__.py, nor does a folder in it
        return ("", True) if fullname == self.name or path in self._folders else None

    def get_resource_reader(self, fullname: str) -> Resources | None:
        """For ``importlib.resources``: the files of a package's folder."""
        path = fullname[len(self.name) :].lstrip(".").replace(".", "/")
        return Resources(self._files, path) if not path or path in self._folders else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        assert spec is not None
        file = spec.loader_state
        source = self._files[file] if file else b""
        if len(source) > MAX_SOURCE:
            raise UserError(f"agents/{file} is {len(source)} bytes", f"a module holds {MAX_SOURCE} bytes at most")
        origin = spec.origin or file
        text = importlib.util.decode_source(source)
        linecache.cache[origin] = (len(text), None, text.splitlines(keepends=True), origin)
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": self._import}
        exec(compile(text, origin, "exec", dont_inherit=True), module.__dict__)

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> Any:
        if level == 0 and (name == PACKAGE or name.startswith(PACKAGE + ".")):
            full = self.name + name[len(PACKAGE) :]
            module = importlib.import_module(full)
            for item in fromlist or ():
                if not hasattr(module, item):
                    importlib.import_module(f"{full}.{item}")
            return module if fromlist else sys.modules[self.name]
        if level == 0 and name.split(".")[0] == "workbench" and not _is_sdk(name, fromlist):
            raise ImportError(f"agents/ may import workbench.sdk only, not {name}")
        return builtins.__import__(name, globals, locals, fromlist, level)


def _is_sdk(name: str, fromlist: Sequence[str]) -> bool:
    if name == "workbench":
        return bool(fromlist) and set(fromlist) == {"sdk"}
    return name == "workbench.sdk" or name.startswith("workbench.sdk.")


def load(source: Source) -> dict[str, ModuleType]:
    """All modules of ``agents/``, by their name below ``agents`` ("" is the package itself).

    UserError when one of them does not compile or fails on import, with the line; nothing is left registered then.
    """
    package = TreePackage(source)
    with _lock:
        if package.name not in sys.modules:
            sys.meta_path.append(package)
        try:
            with contextlib.redirect_stdout(sys.stderr):
                modules = {"": importlib.import_module(package.name)}
                for name in _module_names(source):
                    modules[name] = importlib.import_module(f"{package.name}.{name}")
        except (Exception, SystemExit) as error:  # a module that exits must not take us along
            unload(source.tree)
            raise UserError(f"agents/ cannot be loaded: {_describe(error)}", "mend it and commit") from error
    return modules


def _module_names(source: Source) -> list[str]:
    """Of all modules below the package, in the order of their files; a folder's ``__init__.py`` is the folder's."""
    names = [
        path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for path in source.files
        if path.endswith(".py")
    ]
    return [name for name in names if name != "__init__"]


def unload(tree: ObjectId) -> None:
    """Forget the modules of one tree."""
    name = f"{PACKAGE}@{tree}"
    with _lock:
        for module in [m for m in sys.modules if m == name or m.startswith(name + ".")]:
            del sys.modules[module]
        sys.meta_path[:] = [f for f in sys.meta_path if not (isinstance(f, TreePackage) and f.name == name)]


def _describe(error: BaseException) -> str:
    import traceback

    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: {error.msg}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(f"<{PACKAGE}@")]
    place = f"{frames[-1].filename.split('>/', 1)[-1]}, line {frames[-1].lineno}: " if frames else ""
    return f"{place}{type(error).__name__}: {error}"
