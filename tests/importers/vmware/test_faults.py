"""Faults become errors that name the object and what helps."""

from __future__ import annotations

from typing import Any

import pytest
from pyVmomi import vim, vmodl

from importers.vmware.faults import _TABLE, explain
from pipeline.errors import Cancelled, TargetBusy, TargetError, TargetFull, TargetUnavailable, Unsupported


def test_no_kind_of_fault_hides_behind_one_that_it_is_a_kind_of() -> None:
    kinds = [row[0] for row in _TABLE]
    hidden = [(b, a) for i, a in enumerate(kinds) for b in kinds[i + 1 :] if issubclass(b, a)]
    assert hidden == []


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        (vim.fault.FileLocked(file="[ds] a.vmdk"), TargetBusy, "[ds] a.vmdk is locked"),
        (vim.fault.NoDiskSpace(datastore="fast", file="x"), TargetFull, "the datastore fast is full"),
        (vim.fault.DuplicateName(name="web-1"), TargetBusy, "another object called web-1"),
        (vim.fault.RestrictedVersion(), Unsupported, "licence makes the API read-only"),
        (vim.fault.NoPermission(privilegeId="VApp.Import"), TargetError, "the right VApp.Import is missing"),
        (
            vim.fault.GenericVmConfigFault(msg="Failed to lock the file. Cannot open the disk '[ds] a.vmdk'."),
            TargetBusy,
            "Cannot open the disk '[ds] a.vmdk'",
        ),
        (vim.fault.TaskInProgress(), TargetBusy, "another task works on it"),
        (vim.fault.NotAuthenticated(), TargetUnavailable, "the session has ended"),
        (vim.fault.InvalidHostState(), TargetError, "InvalidHostState"),
        (vmodl.fault.InvalidArgument(invalidProperty="spec.guestId"), TargetError, "the value of spec.guestId"),
        (vmodl.fault.SystemError(reason="x", msg="A general system error occurred."), TargetError, "A general system"),
        (ConnectionResetError(104, "Connection reset by peer"), TargetUnavailable, "cut (Connection reset by peer)"),
        (TimeoutError("timed out"), TargetUnavailable, "cut (timed out)"),
    ],
)
def test_each_fault_has_a_kind_a_sentence_and_a_remedy(fault: Any, kind: type[Exception], message: str) -> None:
    error = explain(fault, "cannot make web-1")
    assert isinstance(error, kind)
    assert str(error).startswith("cannot make web-1: ")
    assert message in str(error)
    assert error.remedy


def test_every_row_can_be_put_into_words_also_when_vsphere_says_nothing() -> None:
    for kind, _error, _message, _remedy in _TABLE:
        error = explain(kind(), "cannot do it")
        assert "cannot do it: " in str(error)
        assert error.remedy


def test_an_error_of_ours_stays_what_it_is() -> None:
    cancelled = Cancelled("enough")
    assert explain(cancelled, "cannot do it") is cancelled


def test_the_words_of_vsphere_and_their_details_are_kept_and_bounded() -> None:
    details = [vmodl.LocalizableMessage(key="k", message="Failed to lock the file"), vmodl.LocalizableMessage(key="l")]
    error = explain(vmodl.MethodFault(msg="Cannot  open\nthe disk.", faultMessage=details), "cannot start web-1")
    assert "Cannot open the disk; Failed to lock the file" in str(error)
    long = explain(vmodl.MethodFault(msg="x" * 9000), "cannot start web-1")
    assert len(str(long)) < 1000
