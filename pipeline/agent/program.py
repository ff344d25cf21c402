"""The agent: looks for orders, checks them, works on them, reports. It opens no port and needs no clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from manifests.mail import alive_key, order_key, report_key
from manifests.repository import KEY as DOCUMENT_KEY
from manifests.repository import RepositoryDocument
from pipeline.agent.clock import StoreClock, as_text, from_text
from pipeline.agent.disks import block_devices
from pipeline.agent.journal import Identity, Journal
from pipeline.agent.meter import Steps
from pipeline.agent.orders import PARAMS, Alive, Check, Order, Receive, Report, State, Stop, Trouble, parse
from pipeline.agent.poll import ALIVE, PROGRESS, Pace
from pipeline.agent.post import Post
from pipeline.agent.work import Work, check, inventory, progress_of, receive
from pipeline.errors import (
    Cancelled,
    FailbackError,
    FormatError,
    KeyRefused,
    NewerFormat,
    StoreError,
    WrongRepository,
)
from pipeline.progress import Counters
from pipeline.repository import refuse_features
from pipeline.store.base import Store

SIDE_BY_SIDE = 4
"""Disks that are worked on at a time."""
_HEAVY = ("receive", "check")


@dataclass(frozen=True, slots=True)
class _Pools:
    """Orders that take long never keep the others waiting."""

    heavy: ThreadPoolExecutor
    light: ThreadPoolExecutor


@dataclass(slots=True)
class _Task:
    """An order that was accepted."""

    order: Order
    steps: Steps
    begun: float
    cancelled: threading.Event = field(default_factory=threading.Event)
    counters: Counters = field(default_factory=Counters)
    reported: float = 0.0


class AgentProgram:
    """One agent in one mailbox. `run` returns when it was told to stop or retired, and survives the store's outages.

    `tell` gets lines for people; `devices` names the block devices of this host.
    """

    def __init__(
        self,
        store: Store,
        journal: Journal,
        identity: Identity,
        *,
        pace: Pace | None = None,
        parallel: int = 6,
        host: str = "",
        version: str = "",
        tell: Callable[[str], object] = lambda _text: None,
        devices: Callable[[], frozenset[str]] = block_devices,
    ) -> None:
        self.store = store
        self.journal = journal
        self.identity = identity
        self.pace = pace or Pace()
        self.clock = StoreClock()
        self.retired = False
        self._parallel = parallel
        self._host, self._version = host, version
        self._tell = tell
        self._devices, self._known_devices = devices, devices()
        self._tasks: dict[str, _Task] = {}
        """By order id."""
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._beat = 0
        self._alive_at = float("-inf")
        self._trouble = ""
        self._document = self._read_document()
        self.post = Post(store, identity.channel, conditional=bool(self._document.abilities.get("conditional_put")))

    def _read_document(self) -> RepositoryDocument:
        document = RepositoryDocument.decode(bytes(self.store.get(DOCUMENT_KEY)))
        refuse_features(self.store)
        wanted = self.identity.code.repository
        if document.id != wanted:
            raise WrongRepository(
                f"{self.store.name} is repository {document.id}, the pairing code is for {wanted}",
                remedy="check the address; `failback agent pair` makes a new code",
            )
        return document

    # -- life ------------------------------------------------------------------------------------------------------

    def answer(self) -> None:
        """Say to the controller who we are; once. Raises KeyRefused when somebody else has."""
        public = self.identity.pair.public
        key, data = self.post.answer(
            {
                "protocol": 1,
                "sign": public.sign.hex(),
                "box": public.box.hex(),
                "run": self.identity.run,
                "host": self._host,
                "version": self._version,
            }
        )
        if self.post.create(key, data):
            return
        _body, there = self.post.read_answer() or ({}, None)
        if there != public:
            raise KeyRefused(
                f"somebody else has answered the pairing code of {self.identity.code.agent}"
                f" (fingerprint {there.fingerprint if there else 'unknown'}, ours is {public.fingerprint})",
                remedy="if that was this host before its state was lost, make a new code with `failback agent pair`;"
                " if not, somebody has read the code: `failback agent remove` it",
            )

    def stop(self) -> None:
        """End soon: work is cut short, and goes on when the agent runs again."""
        self._stopped.set()
        self._wake.set()

    def run(self) -> None:
        """Until `stop`, or the order to retire."""
        with ThreadPoolExecutor(SIDE_BY_SIDE, "order") as heavy, ThreadPoolExecutor(2, "light") as light:
            pools = _Pools(heavy, light)
            try:
                self._take_up(pools)
                while not self._stopped.is_set():
                    self._guarded(lambda: self._look(pools))
                    self._rest()
            finally:
                for task in list(self._tasks.values()):
                    task.cancelled.set()
        self._guarded(self._send)

    def _rest(self) -> None:
        """Until the next look. A disk that is plugged in says that an order for it is on its way, and to see that
        takes no request."""
        end = time.monotonic() + self.pace.wait(active=bool(self._tasks))
        while (left := end - time.monotonic()) > 0 and not self._wake.wait(min(left, self.pace.fast)):
            before, self._known_devices = self._known_devices, self._devices()
            if self._known_devices - before:
                self.pace.stir()
                break
        self._wake.clear()

    def _guarded(self, action: Callable[[], None]) -> None:
        """The store may be away for hours, or show nonsense: an agent says so once and goes on looking."""
        try:
            action()
        except (StoreError, FormatError) as error:
            if error.message != self._trouble:
                self._trouble = error.message
                self._tell(f"{error.message}; going on")
        else:
            if self._trouble:
                self._tell("the repository can be reached again")
            self._trouble = ""

    def _look(self, pools: _Pools) -> None:
        if time.monotonic() - self._alive_at >= ALIVE or not self.clock.known:
            self._sign_of_life()
        self._send()
        bell = self.post.bell()
        if bell is None:
            return
        if bell.attend and (ahead := (from_text(bell.attend) - self.clock.now()).total_seconds()) > 0:
            self.pace.stir(min(ahead, 3600.0))
        handled = self.journal.handled
        while handled < bell.number and not self._stopped.is_set():
            handled += 1
            self._handle(handled, pools)
            self.pace.stir()

    def _sign_of_life(self) -> None:
        self._beat += 1
        alive = Alive(
            run=self.identity.run,
            time=as_text(self.clock.now()) if self.clock.known else "",
            beat=self._beat,
            handled=self.journal.handled,
            active=tuple(self._tasks),
            host=self._host,
            version=self._version,
        )
        key = alive_key(self.identity.code.agent)
        known = self.clock.known
        self.clock.learn(self.store, key, self.post.seal(key, alive))
        if known:
            self._alive_at = time.monotonic()
        else:
            self._sign_of_life()  # now that the time is known

    # -- taking orders ---------------------------------------------------------------------------------------------

    def _handle(self, number: int, pools: _Pools) -> None:
        """Accept or refuse one order. What it says is done after the store holds that it was accepted."""
        key = order_key(self.identity.code.agent, number)
        try:
            order = self.post.order(number)
        except FormatError as error:
            kind = "newer" if isinstance(error, NewerFormat) else "foreign"
            self._refuse(number, "", 1, kind, error.message)
            return
        if order is None:
            self._refuse(number, "", 1, "missing", f"{key} is not there, though later orders are")
            return
        if reason := self._reason_against(order, number):
            self._refuse(number, order.order, order.attempt, *reason)
            return
        if self._accept(order):
            self._start(order, pools)

    def _reason_against(self, order: Order, number: int) -> tuple[str, str] | None:
        """(kind, message) when it must not be done."""
        name = f"order {number} ({order.verb})"
        if order.number != number:
            return "replayed", f"{name} was written as number {order.number}"
        if order.run != self.identity.run:
            return "stale", f"{name} is for another life of this agent"
        try:
            late = (self.clock.now() - from_text(order.expires)).total_seconds()
            parse(PARAMS[order.verb], order.params, name)
        except NewerFormat as error:
            return "newer", error.message
        except (FormatError, ValueError) as error:
            return "foreign", str(error)
        if late > 0:
            return "expired", f"{name} expired {late:.0f} s ago by the store's clock"
        return None

    def _accept(self, order: Order) -> bool:
        """Note it here, then in the store. False: we have lived through this before, and were set back since."""
        number = order.number
        report = self._report(order, "accepted")
        key = report_key(self.identity.code.agent, number)
        taken = number in self.journal.taken()
        self.journal.take(number, order.model_dump_json().encode())
        if not self.post.create(key, self.post.seal(key, report)) and not taken:
            self._set_back(number)
            return False
        self.journal.set_handled(number)
        return True

    def _refuse(self, number: int, order: str, attempt: int, kind: str, message: str) -> None:
        self._tell(f"refused: {message}")
        report = Report(
            number=number, order=order, attempt=attempt, run=self.identity.run, state="refused",
            time=as_text(self.clock.now()), error=Trouble(kind=kind, message=message),
        )  # fmt: skip
        key = report_key(self.identity.code.agent, number)
        # A report that is there already was made in an earlier life: nothing is done either way.
        self.post.create(key, self.post.seal(key, report))
        self.journal.set_handled(number)

    def _set_back(self, number: int) -> None:
        """The store has our report of an order that we do not remember: this is an old image of us. What we know of our
        disks is as old, and orders for the life before must not be done twice."""
        self._tell(
            f"order {number} was taken before, by a later state of this agent: it was set back; a new life begins"
        )
        for task in list(self._tasks.values()):
            task.cancelled.set()
        self.identity = self.journal.new_life(self.identity)
        self.journal.set_handled(number)
        self._sign_of_life()

    # -- working ---------------------------------------------------------------------------------------------------

    def _take_up(self, pools: _Pools) -> None:
        """Go on with what was accepted before this process began."""
        for number, document in sorted(self.journal.taken().items()):
            order = Order.model_validate_json(document)
            if order.run != self.identity.run:
                self.journal.drop(number)  # of a life before the boot: the controller orders it again
            elif number <= self.journal.handled:
                self._start(order, pools, again=True)

    def _start(self, order: Order, pools: _Pools, *, again: bool = False) -> None:
        steps = Steps()
        if not again:
            waited = (self.clock.now() - from_text(order.issued)).total_seconds()
            steps.add("pick_up", max(waited, 0.0))
        earlier = self.journal.ended(order.order)
        if earlier is not None and earlier.state == "done":
            # Ordered again, since our answer was not seen: the same answer.
            self.journal.end(earlier.model_copy(update={"number": order.number, "attempt": order.attempt}))
            return
        task = _Task(order, steps, time.monotonic())
        with self._lock:
            if (running := self._tasks.get(order.order)) is not None:
                # Ordered again while it runs: the report goes to the newer number.
                self.journal.drop(running.order.number)
                running.order = order
                return
            self._tasks[order.order] = task
        self._tell(f"order {order.number}: {order.verb}{' goes on' if again else ''}")
        (pools.heavy if order.verb in _HEAVY else pools.light).submit(self._work, task, again)

    def _work(self, task: _Task, again: bool) -> None:
        state: State = "failed"
        result: dict[str, object] = {}
        error: Trouble | None = None
        try:
            result = self._do(task, again)
            state = "done"
        except Cancelled as found:
            state, error = "cancelled", _trouble(found)
        except FailbackError as found:
            error = _trouble(found)
        except Exception as found:  # noqa: BLE001 - whatever it is, the controller must hear of it
            error = Trouble(kind="Bug", message=f"{type(found).__name__}: {found}", remedy="please report it")
        if state == "cancelled" and self._stopped.is_set() and not self.retired:
            with self._lock:
                del self._tasks[task.order.order]
            return  # goes on when the agent runs again
        task.steps.begin("")
        with self._lock:
            report = self._report(task.order, state, task).model_copy(update={"result": result, "error": error})
            self.journal.end(report)
            del self._tasks[task.order.order]
        self._tell(f"order {report.number}: {state}{f': {error.message}' if error else ''}")
        self.pace.stir()
        self._wake.set()

    def _do(self, task: _Task, again: bool) -> dict[str, object]:
        order = task.order
        params = parse(PARAMS[order.verb], order.params, f"order {order.number}")

        def watch(counters: Counters) -> None:
            task.counters = counters
            if task.cancelled.is_set():
                raise Cancelled(f"order {order.number} was stopped", remedy="order it again: it goes on")

        work = Work(
            self.store, self._document, task.steps, watch, parallel=self._parallel, again=again or order.attempt > 1
        )
        if isinstance(params, Receive):
            return receive(work, params, self.journal.stage_folder(params.disk))
        if isinstance(params, Check):
            return check(work, params)
        if isinstance(params, Stop):
            return self._stop_task(params.order)
        if order.verb == "retire":
            self.retired = True
            self.stop()
            return {}
        return inventory()

    def _stop_task(self, order: str) -> dict[str, object]:
        with self._lock:
            task = self._tasks.get(order)
        if task is not None:
            task.cancelled.set()
        return {"running": task is not None}

    # -- reporting -------------------------------------------------------------------------------------------------

    def _report(self, order: Order, state: State, task: _Task | None = None) -> Report:
        report = Report(
            number=order.number, order=order.order, attempt=order.attempt, run=order.run, state=state,
            time=as_text(self.clock.now()),
        )  # fmt: skip
        if task is None:
            return report
        return report.model_copy(
            update={
                "seconds": round(time.monotonic() - task.begun, 3),
                "steps": task.steps.snapshot(),
                "progress": progress_of(task.counters),
            }
        )

    def _send(self) -> None:
        """Last reports first; then how far the others are."""
        for report in self.journal.unsent():
            key = report_key(self.identity.code.agent, report.number)
            self.store.put(key, self.post.seal(key, report))
            self.journal.sent(report.number)
        for task in list(self._tasks.values()):
            if time.monotonic() - max(task.reported, task.begun) < PROGRESS:
                continue
            with self._lock:
                if task.order.order not in self._tasks:
                    continue  # it has ended: its last report comes
                report = self._report(task.order, "running", task)
                task.reported = time.monotonic()
            key = report_key(self.identity.code.agent, report.number)
            self.store.put(key, self.post.seal(key, report))


def _trouble(error: FailbackError) -> Trouble:
    return Trouble(kind=type(error).__name__, message=error.message, remedy=error.remedy)
