"""Who holds what: answers that one backend keeps in its memory, by their ids, within a bound."""

from collections import OrderedDict
from typing import NamedTuple


class Holder(NamedTuple):
    """The backend that keeps an answer, the version that made it, and for whom.

    `tenant` is `""` where the gateway is open, and None where it is not known who asked.
    """

    backend: str
    model: str
    version: int
    tenant: str | None


class Holders:
    """The most recently used `bound` ids, each with its holder."""

    def __init__(self, bound: int = 100_000) -> None:
        self._bound = bound
        self._by_id: OrderedDict[str, Holder] = OrderedDict()
        self._same: dict[Holder, Holder] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def note(self, response_id: str, holder: Holder) -> None:
        """Remember who holds an id; the longest unused is forgotten for it.

        Clients may choose ids, so an id stays whose it was: another tenant who repeats it would
        else be led to what is not theirs, or take it away.
        """
        known = self._by_id.get(response_id)
        if known is not None and known.tenant != holder.tenant:
            return
        if len(self._same) > self._bound:
            self._same.clear()
        # Thousands of ids share one holder, so each is kept once.
        self._by_id[response_id] = self._same.setdefault(holder, holder)
        self._by_id.move_to_end(response_id)
        if len(self._by_id) > self._bound:
            self._by_id.popitem(last=False)

    def get(self, response_id: str) -> Holder | None:
        """Return who holds an id, if that is known."""
        holder = self._by_id.get(response_id)
        if holder is not None:
            self._by_id.move_to_end(response_id)
        return holder
