"""Safe writing: a temporary sibling, flushed, checked and renamed over the old, so that a kill leaves old or
new, whole."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import secrets
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path

from smeld import _check

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
#: temporary names of this process that are still in use
_in_use: set[str] = set()


@contextmanager
def replacing(path: str | Path, *, check: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """Write one file safely: the block writes the temporary sibling it is given, which then replaces
    ``path``.

    ``check`` is called with the finished temporary file and may raise. On any exception, Ctrl-C included, the
    temporary is removed and ``path`` is as before. What killed runs left behind is removed first.

    >>> import tempfile, pathlib
    >>> target = pathlib.Path(tempfile.mkdtemp()) / "notes.txt"
    >>> with replacing(target) as temporary:
    ...     _ = temporary.write_text("whole or not at all")
    >>> target.read_text()
    'whole or not at all'
    """
    target = _resolved(path)
    if target.is_dir():
        raise _check.problem(
            f"{target.name} cannot be written", found="a folder of that name", cure="give another name"
        )
    temporary = _temporary(target, "tmp")
    try:
        with _writable(target):
            temporary.touch()
        yield temporary
        if check is not None:
            check(temporary)
        with _writable(target):
            _sync(temporary)
            temporary.replace(target)
            _sync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)
        _in_use.discard(temporary.name)


@contextmanager
def replacing_folder(
    path: str | Path,
    *,
    known: Iterable[str] = (),
    marker: str = "run.toml",
    check: Callable[[Path], None] | None = None,
) -> Iterator[Path]:
    """Write a folder safely: the block fills the temporary sibling it is given, which then takes the place of
    ``path``.

    An existing folder is replaced only if it is empty, or holds ``marker`` and nothing but ``known`` entries
    (glob patterns of relative paths such as ``"tables/*.csv"``; a folder's name stands for all in it): what
    smeld did not write is never removed. On Linux the swap is one atomic exchange; elsewhere two renames,
    mended at the next start if cut short.
    """
    target = _resolved(path)
    patterns = [*known, marker]
    temporary = _temporary(target, "tmp")
    _restore(target)
    refuse_foreign(target, known=patterns, marker=marker)
    try:
        with _writable(target):
            temporary.mkdir()
        yield temporary
        if check is not None:
            check(temporary)
        refuse_foreign(target, known=patterns, marker=marker)
        with _writable(target):
            _sync_tree(temporary)
            _swap(temporary, target)
            _sync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        _in_use.discard(temporary.name)


def refuse_foreign(path: str | Path, *, known: Iterable[str] = (), marker: str = "run.toml") -> None:
    """Raise InputError if ``path`` cannot be replaced as a results folder without losing what smeld did not
    write."""
    folder = Path(path)
    cure = "give another folder with --out, or move these files away"
    if not folder.exists():
        return
    if not folder.is_dir():
        raise _check.problem(
            f"output {folder.name} is not a folder",
            found="a file of that name",
            cure="give another folder with --out",
        )
    here = Path.cwd()
    if here.samefile(folder) or any(parent.samefile(folder) for parent in here.parents):
        raise _check.problem(
            "the folder one works in cannot be replaced",
            found=f"{folder.name} is the current folder",
            cure="give a folder inside it with --out",
        )
    if not any(folder.iterdir()):
        return
    if not (folder / marker).is_file():
        raise _check.problem(
            f"output folder {folder.name} is not one of smeld's", found=f"files but no {marker}", cure=cure
        )
    patterns = [*known, marker]
    foreign = sorted(rel for rel in _relative_files(folder) if not _is_known(rel, patterns))
    if foreign:
        raise _check.problem(
            f"output folder {folder.name} holds files that smeld did not write",
            found=_check.listed(foreign, 3),
            cure=cure,
        )


def _relative_files(folder: Path) -> Iterator[str]:
    for at, folders, names in os.walk(folder):
        links = [name for name in folders if Path(at, name).is_symlink()]
        yield from (Path(at, name).relative_to(folder).as_posix() for name in [*names, *links])


def _is_known(relative: str, patterns: Iterable[str]) -> bool:
    parts = relative.split("/")
    starts = ["/".join(parts[: i + 1]) for i in range(len(parts))]
    # a pattern's depth must fit: "*.csv" knows no file in a subfolder
    return any(fnmatch(start, p) and start.count("/") == p.count("/") for p in patterns for start in starts)


def _resolved(path: str | Path) -> Path:
    """The absolute path, links followed (a link stays a link); its parent made, leftovers of dead runs
    removed."""
    target = Path(path).expanduser().resolve()
    with _writable(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    _clean(target)
    return target


@contextmanager
def _writable(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise  # no fault of the user's input: the disk is full or failing
        raise _check.problem(
            f"{target.name} cannot be written in {target.parent}",
            found=f"{type(error).__name__}: {error.strerror or error}",
            cure="give a place that can be written to",
        ) from error


def _temporary(target: Path, kind: str) -> Path:
    # the name is cut so that the whole stays below the 255 bytes that file systems allow
    stem = target.name.encode()[:150].decode(errors="ignore")
    name = f".{stem}.{kind}-{_HOST}-{os.getpid()}-{secrets.token_hex(4)}"
    _in_use.add(name)
    return target.with_name(name)


def _leftovers(target: Path, kind: str) -> list[Path]:
    """Temporary siblings of ``target`` whose owner, a process of this machine, is dead."""
    stem = target.name.encode()[:150].decode(errors="ignore")
    start = f".{stem}.{kind}-{_HOST}-"
    found = []
    for entry in sorted(target.parent.iterdir()) if target.parent.is_dir() else []:
        pid, _, rest = entry.name.removeprefix(start).partition("-")
        if entry.name.startswith(start) and pid.isdigit() and len(rest) == 8 and _dead(int(pid), entry.name):
            found.append(entry)
    return found


def _dead(pid: int, name: str) -> bool:
    if pid == os.getpid():
        return name not in _in_use  # an earlier process had our number (containers often repeat theirs)
    if os.name != "posix":
        return False  # no harmless way to ask; a leftover does no harm either
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _clean(target: Path) -> None:
    with suppress(OSError):
        for left in _leftovers(target, "tmp"):
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def _restore(target: Path) -> None:
    """Finish what a kill cut short between the two renames of ``_swap_in_two``."""
    with suppress(OSError):
        for old in _leftovers(target, "old"):
            if target.exists():
                shutil.rmtree(old, ignore_errors=True)
            else:
                old.rename(target)


def _swap(temporary: Path, target: Path) -> None:
    if not target.exists() or not any(target.iterdir()):
        temporary.rename(target)  # POSIX: atomic, also over an empty folder
    elif not _exchange(temporary, target):
        _swap_in_two(temporary, target)


def _exchange(one: Path, other: Path) -> bool:
    """Linux: swap two names in one step (renameat2). False where the system or the file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    done = renameat2(
        ctypes.c_int(_AT_FDCWD), ctypes.c_char_p(os.fsencode(one)),
        ctypes.c_int(_AT_FDCWD), ctypes.c_char_p(os.fsencode(other)), ctypes.c_uint(_RENAME_EXCHANGE),
    )  # fmt: skip
    if done == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM):
        return False
    raise OSError(code, os.strerror(code), str(other))


def _swap_in_two(temporary: Path, target: Path) -> None:
    old = _temporary(target, "old")
    target.rename(old)
    try:
        temporary.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
    _in_use.discard(old.name)


def _sync(path: Path) -> None:
    """Flush a file or folder to the disk; folders cannot be opened everywhere (Windows)."""
    if path.is_dir() and os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_tree(folder: Path) -> None:
    for at, _, names in os.walk(folder, topdown=False):
        for name in names:
            _sync(Path(at, name))
        _sync(Path(at))
