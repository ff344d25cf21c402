"""One session with vCenter or a single ESXi host.

Calls are of two kinds. A *question* changes nothing, or the same again when it is put twice: it is put once more after
the session ended (a new login comes first) or the connection was cut. An *order* is given once; when its answer is lost
the caller gets TargetUnavailable and has to look for what it made, by marker or by the id of a task.

Threads share the session, and each has a property collector of its own: one collector serves one waiting call at a
time. Managed objects outlive a new login, collectors do not; so ask for `collector()` where it is used.
"""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Callable
from typing import Any, TypeVar
from xml.etree import ElementTree

from pyVmomi import SoapStubAdapter, VmomiSupport, vim, vmodl

from importers.vmware.faults import CUT, REFUSED, explain, explained
from importers.vmware.options import VmwareOptions, split_address
from importers.vmware.proxy import Proxy
from importers.vmware.tls import authorities_context, check_certificate, pinned_context, show
from pipeline.errors import TargetError, TargetUnavailable, UsageError

T = TypeVar("T")

CALL_SECONDS = 120.0
"""For one call to be answered; whatever takes longer is a task."""
LEAVE_SECONDS = 5.0
"""For the last words to a server that may be gone."""
POOL_SECONDS = 20
"""Connections that idled longer are not used again: a proxy in front of vCenter may have closed them, and an order must
not be lost for that."""
ALIVE_SECONDS = 120.0
"""Between signs of life. Sessions end after half an hour of silence by default, and some sites set a few minutes."""
PAUSES = (0.0, 0.9)
"""Seconds before a question whose connection was cut is put again: at once, for the line may have been stale, and once
more."""
COOKIE = "vmware_soap_session"
_OF_A_SESSION = (vmodl.query.PropertyCollector, vmodl.query.PropertyCollector.Filter, vim.view.View)
"""What ends with the session that made it; a call that comes between its end and the next login finds them gone."""
_NO_MATTER: tuple[type[Exception], ...] = (REFUSED, TargetError, UsageError, *CUT)
_CLONE = "cst-"
"""What tickets of SessionManager.AcquireCloneTicket begin with."""


class Connection:
    """Nothing is connected before the first call; `close` ends the session."""

    def __init__(self, options: VmwareOptions, *, alive_seconds: float = ALIVE_SECONDS) -> None:
        self._options = options
        self._alive_seconds = alive_seconds
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._pulse: threading.Thread | None = None
        self._own = threading.local()
        self._collectors: list[Any] = []
        """Of all threads, in this session."""
        self._generation = 0
        self._stub: Any = None
        self._content: Any = None
        self._context: ssl.SSLContext | None = None
        self._session = ""
        self._borrowed = False
        self.proxy = Proxy.of(options)

    # -- what is there ---------------------------------------------------------------------------------------------

    @property
    def host(self) -> str:
        return self._address()[0]

    @property
    def port(self) -> int:
        return self._address()[1]

    @property
    def name(self) -> str:
        """For messages."""
        return show(*self._address())

    @property
    def content(self) -> Any:
        """vim.ServiceInstanceContent: the managers of the platform. Logs in when that was not done."""
        self._open()
        return self._content

    @property
    def is_vcenter(self) -> bool:
        """False: a single ESXi host."""
        return str(self.content.about.apiType) == "VirtualCenter"

    @property
    def session(self) -> str:
        """Key of our session, as SessionManager knows it."""
        self._open()
        return self._session

    @property
    def borrowed(self) -> bool:
        """The session is somebody else's, and not ours to end."""
        self._open()
        return self._borrowed

    @property
    def context(self) -> ssl.SSLContext:
        """What is trusted for `host`: use it for files of datastores, too."""
        self._open()
        assert self._context is not None
        return self._context

    def cookie(self) -> str:
        """Value of the Cookie header that stands for our session. A secret."""
        self._open()
        value = str(self._stub.cookie).split(";")[0].split("=", 1)[-1].strip('"')
        return f'{COOKIE}="{value}"'

    def managed(self, kind: Any, identity: str) -> Any:
        """The managed object with an id that was noted earlier; it may be gone."""
        self._open()
        return kind(identity, self._stub)

    def collector(self) -> Any:
        """This thread's vim.PropertyCollector. Call it inside `ask`, for a new login needs another one."""
        self._open()
        if getattr(self._own, "generation", None) != self._generation:
            generation = self._generation
            self._own.collector = self._content.propertyCollector.CreatePropertyCollector()
            self._own.generation = generation
            self._collectors.append(self._own.collector)
        return self._own.collector

    def sibling(self, path: str, version: str) -> Any:
        """A stub for another service of the same vCenter, with our session as it is now."""
        stub = self._stub_for(path, version, self.context)
        # That of the policies reads the session from the header of the request.
        stub.requestContext = {"vcSessionCookie": str(self._stub.sessionId)}
        stub.cookie = self.cookie()
        return stub

    # -- calls -----------------------------------------------------------------------------------------------------

    def ask(self, question: Callable[[], T], about: str) -> T:
        """The answer to a question, put again when the session had ended or the connection was cut. `about`
        as in `faults.explain`. Raises TargetError and its kin; never a fault of pyvmomi."""
        with explained(about):
            return self.asked(question)

    def asked(self, question: Callable[[], T]) -> T:
        """`ask` for those who want to know which fault it was."""
        self._open()
        for pause in PAUSES:
            generation = self._generation
            try:
                return question()
            except vim.fault.NotAuthenticated:
                self._again(generation)
                break
            except vmodl.fault.ManagedObjectNotFound as fault:
                if not isinstance(fault.obj, _OF_A_SESSION):
                    raise
                self._look_alive(generation)
                break
            except CUT:
                if self._ended.wait(pause):
                    raise
        return question()

    def order(self, order: Callable[[], T], about: str) -> T:
        """The answer to a call that changes something, given once. TargetUnavailable: nobody knows whether it took
        effect, look; after any other error it did not."""
        self._open()
        generation = self._generation
        try:
            return order()
        except vim.fault.NotAuthenticated as fault:
            self._again(generation)
            raise explain(fault, about) from fault
        except (REFUSED, *CUT) as fault:
            raise explain(fault, about) from fault

    def end_session(self, key: str) -> bool:
        """End another session, one of our own that died. False: it is gone already, or we may not."""
        manager = self.content.sessionManager
        try:
            self.asked(lambda: manager.TerminateSession([key]))
        except (vim.fault.NotFound, vim.fault.NoPermission, vmodl.fault.InvalidArgument):
            return False
        except (REFUSED, *CUT) as fault:
            raise explain(fault, f"cannot end the session {key[:8]}… at {self.name}") from fault
        return True

    def close(self) -> None:
        """Log out, unless the session is somebody else's. Never fails."""
        self._ended.set()
        if self._pulse is not None:
            self._pulse.join(timeout=CALL_SECONDS)
        with self._lock:
            if self._content is not None:
                self._leave()
            if self._stub is not None:
                self._stub.DropConnections()
            self._content = None

    def _leave(self) -> None:
        """Take back what we made there, on a line of its own: a server that is silent holds nobody up for long."""
        line = self._stub_for("/sdk", self._stub.version, self.context, LEAVE_SECONDS)
        line.cookie = self.cookie()
        manager = self._content.sessionManager
        try:
            for collector in self._collectors:
                type(collector)(collector._moId, line).DestroyPropertyCollector()
            if not self._borrowed:
                type(manager)(manager._moId, line).Logout()
        except (REFUSED, *CUT):
            pass  # it ends by itself
        finally:
            line.DropConnections()

    # -- logging in ------------------------------------------------------------------------------------------------

    def _address(self) -> tuple[str, int]:
        if self._options.address is None:
            raise UsageError(
                "nothing says where vCenter or the ESXi host is",
                remedy="write `options: {vmware: {address: HOST, user: USER}}` in the mapping, and name it with --map",
            )
        return split_address(self._options.address)

    def _open(self) -> None:
        if self._content is not None:
            return
        with self._lock:
            if self._content is not None:
                return
            if self._ended.is_set():
                raise TargetError(f"the connection to {self.name} is closed", remedy="open another one")
            self._context = self._trusted()
            with explained(f"cannot talk to {self.name}"):
                self._stub = self._adapter(self._context)
                content = vim.ServiceInstance("ServiceInstance", self._stub).RetrieveContent()
            self._log_in(content)
            self._content = content
            self._generation += 1
            self._pulse = threading.Thread(target=self._stay, name=f"alive {self.name}", daemon=True)
            self._pulse.start()

    def _trusted(self) -> ssl.SSLContext:
        host, port = self._address()
        if self._options.fingerprint:
            return pinned_context(host, port, self._options.fingerprint, self.proxy)
        context = authorities_context(self._options.ca)
        check_certificate(host, port, context, self.proxy)
        return context

    def _adapter(self, context: ssl.SSLContext) -> Any:
        return self._stub_for("/sdk", self._version(context), context)

    def _stub_for(self, path: str, version: str, context: ssl.SSLContext, seconds: float = CALL_SECONDS) -> Any:
        host, port = self._address()
        through = self.proxy.serves(host)
        return SoapStubAdapter(
            host=host,
            port=port,
            path=path,
            version=version,
            sslContext=context,
            httpProxyHost=self.proxy.host if through else None,
            httpProxyPort=self.proxy.port if through else 80,
            httpConnectionTimeout=seconds,
            connectionPoolTimeout=POOL_SECONDS,
        )

    def _version(self, context: ssl.SSLContext) -> str:
        """The newest version of the API that both sides know. (pyvmomi's own search has no time limit.)"""
        host, port = self._address()
        if self.proxy.serves(host):
            line = http.client.HTTPSConnection(self.proxy.host, self.proxy.port, timeout=CALL_SECONDS, context=context)
            line.set_tunnel(host, port)
        else:
            line = http.client.HTTPSConnection(host, port, timeout=CALL_SECONDS, context=context)
        try:
            line.request("GET", "/sdk/vimServiceVersions.xml")
            answer = line.getresponse()
            body = answer.read() if answer.status == 200 else b""
        finally:
            line.close()
        try:
            offered = {node.text for node in ElementTree.fromstring(body).iter("version")}
        except ElementTree.ParseError:
            offered = set()
        for version in VmomiSupport.GetServiceVersions("vim25"):
            if VmomiSupport.versionIdMap[version] in offered:
                return str(version)
        raise TargetError(f"{self.name} is no vCenter and no ESXi host", remedy="correct `address` in the mapping")

    def _log_in(self, content: Any) -> None:
        manager = content.sessionManager
        options = self._options
        if options.ticket is not None:
            ticket = options.ticket.read(f"the ticket for {self.name}")
            with explained(f"cannot use the ticket for {self.name}"):
                if ticket.startswith(_CLONE):
                    self._session = str(manager.CloneSession(ticket).key)
                    return
                self._stub.SetSessionId(ticket)
                self._borrowed = True
                current = manager.currentSession
            if current is None:
                raise TargetError(
                    f"the session of the ticket for {self.name} is not alive", remedy="get a new one, and run it again"
                )
            self._session = str(current.key)
            return
        if not options.user:
            raise UsageError(
                f"nothing says who we are to {self.name}",
                remedy="write `user: NAME` and where `password` is found into the mapping's options for vmware",
            )
        password = options.password.read(f"the password of {options.user}")
        with explained(f"cannot log in to {self.name} as {options.user}"):
            self._session = str(manager.Login(options.user, password, None).key)

    def _again(self, generation: int) -> None:
        """A new login after the session of this generation ended. Once: others that noticed wait for it."""
        with self._lock:
            if self._generation != generation:
                return
            if self._options.ticket is not None:
                raise TargetUnavailable(
                    f"the session at {self.name} has ended, and a ticket gives no second one",
                    remedy="get a new ticket, then run the same command again",
                )
            self._collectors.clear()
            self._stub.SetSessionId("")
            self._log_in(self._content)
            self._generation += 1

    def _look_alive(self, generation: int) -> None:
        """What belongs to a session is gone: make sure that there is one, and forget this thread's collector."""
        try:
            vim.ServiceInstance("ServiceInstance", self._stub).CurrentTime()
        except vim.fault.NotAuthenticated:
            self._again(generation)
        self._own.generation = None

    def _stay(self) -> None:
        """Keep the session alive while others work, or wait for S3."""
        service = vim.ServiceInstance("ServiceInstance", self._stub)
        while not self._ended.wait(self._alive_seconds):
            try:
                self.asked(service.CurrentTime)
            except _NO_MATTER:
                continue  # whoever needs the session will be told
