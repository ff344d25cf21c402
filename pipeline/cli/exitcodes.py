"""What the exit code of `failback` tells a cron job.

====  =====================================================================================
code  meaning
====  =====================================================================================
0     done
1     another error
2     the command or the configuration is wrong
3     there is no such machine or recovery point, or it is void or forgotten
4     the store: down, full, access denied
5     damaged data: a hash, a length or a structure in the repository is wrong
6     the source disk: in use, unreadable, changed while it was read
7     the target disk: full, in use, not the one that was named
8     verification failed: data differ from the recovery point
9     another writer of the same machine, or another command at its place, is alive, or was faster
10    done, but ranges of the source could not be read (`--keep-going`)
11    `failback doctor`, or the look at a target beforehand, found something to mend; nothing was changed
12    the machine is there, but it does not start or a required check failed
13    the repository's keys: missing, wrong, or not good for this; or it is not the repository that is known here
14    an agent: not paired, silent, or it refused an order
15    a run waits for a person: an approval, or it is held
16    a run waits for its conditions, or for time (`--no-wait`)
17    a run ended otherwise than at home: rolled back, cancelled, or only a part of it came home
70    a bug in failback
129   ended by a hang-up
130   ended by Ctrl-C
143   ended by a termination signal
====  =====================================================================================

Codes 3 to 9 and 11 to 14 belong to the errors in `pipeline.errors`.
"""

from __future__ import annotations

OK = 0
FAILED = 1
USAGE = 2
DAMAGED = 5
VERIFY = 8
UNREADABLE = 10
NOT_CLEAN = 11
NOT_VERIFIED = 12
RUN_ASKS = 15
RUN_WAITS = 16
RUN_UNDONE = 17
BUG = 70
SIGNALLED = 128
"""Plus the number of the signal."""

REMEDIES = {
    FAILED: "`failback doctor` checks this host; the log has more",
    USAGE: "`failback --help` and `failback COMMAND --help` say what is possible",
    3: "`failback list` shows what the repository holds",
    4: "`failback doctor` checks the way to the repository; nothing that was committed is lost",
    5: "`failback verify` says what is damaged; restore the object from a copy of the bucket",
    6: "check the disk's name and rights; nothing was committed, the same command goes on",
    7: "check the target's name, rights and space; the same command goes on",
    VERIFY: "do not use this disk; import it again, or into another place",
    9: "nothing was committed; run the same command again when the other writer has ended",
    NOT_CLEAN: "mend it and run the same command again",
    14: "`failback agent list` shows when it was last seen; the same command goes on with what it was told",
    NOT_VERIFIED: "the console and the log of the machine say more; the same command tries again",
}
"""What to do about an error that does not say it itself, by its exit code."""
