"""What the host knows of the rows: those that wait and those that run."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from unmask.decode.state import Request
from unmask.trajectory import Trajectory


@dataclass(frozen=True, slots=True)
class Finished:
    """What became of a request: a trajectory, or one line that says why there is none."""

    id: int
    trajectory: Trajectory | None
    error: str | None = None


@dataclass(slots=True)
class Running:
    """A row in a slot."""

    request: Request
    slot: int
    first_masked: int = 0
    needs_whole: bool = True
    """Whether its next step must see the whole row."""
    seen_whole: list[int] = field(default_factory=list)
    """Under a cache, see `Trajectory`."""

    def advance(self, first_masked: int, has_cache: bool, refresh_every: int | None) -> None:
        """Count a step that has been taken; `first_masked` is negative where it was the last."""
        block, before = self.request.block_length, self.first_masked
        self.first_masked = first_masked
        if not has_cache:
            return
        step = len(self.seen_whole)
        self.seen_whole.append(step if self.needs_whole else self.seen_whole[-1])
        is_due = refresh_every is not None and step - self.seen_whole[-1] >= refresh_every
        self.needs_whole = is_due or first_masked // block != before // block

    def window(self, ends_with_block: bool) -> int:
        """Completion positions that a cached step computes."""
        block, length = self.request.block_length, self.request.length
        start = self.first_masked // block * block
        return block if ends_with_block else length - start


def room_for(requests: Sequence[Request]) -> tuple[int, int]:
    """Columns and completion positions."""
    return max(each.size for each in requests), max(each.length for each in requests)


class Queue:
    """Requests in the order in which they come."""

    def __init__(self) -> None:
        self._requests: OrderedDict[int, Request] = OrderedDict()

    def __len__(self) -> int:
        return len(self._requests)

    def put(self, request: Request) -> None:
        self._requests[request.id] = request

    def put_back(self, requests: Sequence[Request]) -> None:
        """Before all others."""
        for request in reversed(requests):
            self._requests[request.id] = request
            self._requests.move_to_end(request.id, last=False)

    def first(self, num_rows: int, num_tokens: int | None) -> list[Request]:
        """As many as these bounds allow; they stay until they are dropped."""
        found: list[Request] = []
        for request in islice(self._requests.values(), max(0, num_rows)):
            if num_tokens is not None:
                if request.size > num_tokens:
                    break
                num_tokens -= request.size
            found.append(request)
        return found

    def drop(self, number: int) -> bool:
        """Whether it was there."""
        return self._requests.pop(number, None) is not None

    def all(self) -> list[Request]:
        return list(self._requests.values())
