"""Waiting for tasks: whatever happens meanwhile, the answer is right or says that it is not known."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from pyVmomi import vim, vmodl

from importers.vmware.connection import Connection
from importers.vmware.tasks import Question, look, question_of, wait
from pipeline.errors import Cancelled, TargetBusy, TargetFull, TargetUnavailable
from vmware.site import Control, Site, do, make_machine

KIND = "org.example.failback.test"


class OpenTask:
    """A task that ends when the test says so: those of an extension are told by it how they go."""

    def __init__(self, connection: Connection) -> None:
        description = vim.ElementDescription(label="l", summary="s", key=KIND)
        extension = vim.Extension(
            description=description, key="org.example", version="1", lastHeartbeatTime=datetime.now(UTC),
            taskList=[vim.Extension.TaskTypeInfo(taskID=KIND)],
        )  # fmt: skip
        content = connection.content
        connection.order(lambda: content.extensionManager.RegisterExtension(extension), "cannot register")
        folder = content.rootFolder
        info = connection.order(lambda: content.taskManager.CreateTask(folder, KIND, None, True), "cannot make a task")
        self.task = info.task
        self._connection = connection
        self.state("running")

    def state(self, state: str, result: Any = None, fault: Any = None) -> None:
        self._connection.ask(lambda: self.task.SetTaskState(state, result, fault), "cannot set it")

    def progress(self, percent: int) -> None:
        self._connection.ask(lambda: self.task.UpdateProgress(percent), "cannot set it")


@pytest.fixture
def opened(vcenter: Site) -> tuple[Connection, OpenTask]:
    return vcenter.connect(), OpenTask(vcenter.connect())


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def test_progress_and_result_come_through(opened: tuple[Connection, OpenTask], threads: ThreadPoolExecutor) -> None:
    connection, task = opened
    seen: list[int] = []
    at_thirty = threading.Event()

    def progress(percent: int) -> None:
        seen.append(percent)
        if percent == 30:
            at_thirty.set()

    waiting: Future[Any] = threads.submit(wait, connection, task.task, Control(), "cannot do it", progress=progress)
    task.progress(30)
    assert at_thirty.wait(20)
    task.state("success", result="done it")
    assert waiting.result(20) == "done it"
    assert seen[-1] >= 30


def test_a_fault_of_the_task_is_an_error_about_what_was_done(opened: tuple[Connection, OpenTask]) -> None:
    connection, task = opened
    task.state("error", fault=vim.fault.NoDiskSpace(datastore="LocalDS_0", file="[LocalDS_0] a.vmdk"))
    with pytest.raises(TargetFull, match="cannot make web-1: the datastore LocalDS_0 is full") as caught:
        wait(connection, task.task, Control(), "cannot make web-1")
    assert "datastore" in caught.value.remedy


def test_a_real_fault_of_a_machine_is_told(vcenter: Site) -> None:
    connection = vcenter.connect()
    machine = make_machine(connection, vcenter.place(connection), "web-1")
    do(connection, machine.PowerOnVM_Task)
    with pytest.raises(TargetBusy, match="it is on"):
        do(connection, machine.PowerOnVM_Task)


def test_cancellation_is_asked_for_while_nothing_happens_and_leaves_the_task_alone(
    opened: tuple[Connection, OpenTask],
) -> None:
    connection, task = opened
    with pytest.raises(Cancelled):
        wait(connection, task.task, Control(cancel_after=2), "cannot do it")
    assert look(connection, task.task).state == "running"


def test_a_task_is_cancelled_with_us_when_that_is_wanted(opened: tuple[Connection, OpenTask]) -> None:
    connection, task = opened
    with pytest.raises(Cancelled):
        wait(connection, task.task, Control(cancel_after=0), "cannot do it", cancel=True)
    seen = look(connection, task.task)
    assert seen.over
    assert isinstance(seen.error, vmodl.fault.RequestCanceled)


def test_a_session_that_ends_while_we_wait_costs_nothing_but_a_login(
    opened: tuple[Connection, OpenTask], vcenter: Site, threads: ThreadPoolExecutor
) -> None:
    connection, task = opened
    first = connection.session
    started, half = threading.Event(), threading.Event()

    def progress(percent: int) -> None:
        (half if percent == 50 else started).set()

    waiting = threads.submit(wait, connection, task.task, Control(), "cannot do it", progress=progress)
    assert started.wait(20)
    assert vcenter.connect().end_session(first)
    task.progress(50)
    assert half.wait(20)
    task.state("success", result=7)
    assert waiting.result(20) == 7
    assert connection.session != first


def test_a_task_that_vsphere_forgot_is_unknown_and_no_failure(vcenter: Site) -> None:
    connection = vcenter.connect()
    forgotten = connection.managed(vim.Task, "task-4711")
    assert look(connection, forgotten).state == "gone"
    with pytest.raises(TargetUnavailable, match="no longer knows the task task-4711"):
        wait(connection, forgotten, Control(), "cannot make web-1")


def test_a_task_is_found_by_the_id_that_was_noted(opened: tuple[Connection, OpenTask]) -> None:
    connection, task = opened
    noted = str(task.task._moId)
    task.state("success", result="there")
    seen = look(connection, connection.managed(vim.Task, noted))
    assert (seen.state, seen.result, seen.over) == ("success", "there", True)


def asking(connection: Connection, machine: Any) -> None:
    """The machine asks what people know well."""
    choice = vim.option.ChoiceOption(
        choiceInfo=[
            vim.ElementDescription(label="I moved it", summary="", key="1"),
            vim.ElementDescription(label="I copied it", summary="", key="2"),
        ],
        defaultIndex=1,
    )
    question = vim.vm.QuestionInfo(id="q7", text="This machine might have been moved or copied.", choice=choice)
    value = vim.option.OptionValue(key="SET.runtime.question", value=question)
    do(connection, lambda: machine.ReconfigVM_Task(vim.vm.ConfigSpec(extraConfig=[value])))


def test_a_machine_that_waits_for_an_answer_is_not_taken_for_a_slow_one(
    opened: tuple[Connection, OpenTask], vcenter: Site
) -> None:
    connection, task = opened
    machine = make_machine(connection, vcenter.place(connection), "web-1")
    assert question_of(connection, machine) is None
    asking(connection, machine)
    asked = question_of(connection, machine)
    assert asked == Question(
        "q7", "This machine might have been moved or copied.", {"1": "I moved it", "2": "I copied it"}, "2"
    )
    with pytest.raises(TargetBusy, match=r"moved or copied\. \('I moved it', 'I copied it'\)") as caught:
        wait(connection, task.task, Control(), "cannot start web-1", machine=machine)
    assert "answer it" in caught.value.remedy
