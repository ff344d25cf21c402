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
9     another writer of the same machine is alive, or was faster
10    done, but ranges of the source could not be read (`--keep-going`)
11    `failback doctor` found something to mend
70    a bug in failback
129   ended by a hang-up
130   ended by Ctrl-C
143   ended by a termination signal
====  =====================================================================================

Codes 3 to 9 belong to the errors in `pipeline.errors`.
"""

from __future__ import annotations

OK = 0
FAILED = 1
USAGE = 2
VERIFY = 8
UNREADABLE = 10
NOT_CLEAN = 11
BUG = 70
SIGNALLED = 128
"""Plus the number of the signal."""
