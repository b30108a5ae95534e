"""Removal of a folder whose content an adversary chose."""

import os


def remove_tree(root: str) -> None:
    """Remove `root`, however deep it nests and whatever its modes; nobody may still write to it.

    Folders are moved up to `root` before they are emptied, so no path grows long and nothing
    recurses. Symbolic links are removed, never followed.
    """
    num_moved = 0
    while True:
        folders = []
        for entry in _entries(root):
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            else:
                os.unlink(entry.path)
        if not folders:
            os.rmdir(root)
            return
        for folder in folders:
            for entry in _entries(folder):
                if entry.is_dir(follow_symlinks=False):
                    os.chmod(entry.path, 0o700)
                    num_moved += 1
                    os.rename(entry.path, _free_name(root, num_moved))
                else:
                    os.unlink(entry.path)
            os.rmdir(folder)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    os.chmod(folder, 0o700)
    with os.scandir(folder) as entries:
        return list(entries)


def _free_name(root: str, number: int) -> str:
    """A name the adversary could not have taken: it holds 64 random bits."""
    return os.path.join(root, f"{os.urandom(8).hex()}-{number}")
