"""A recovery point as an NBD disk: a guest boots from the repository at once and writes into an overlay.

Reads come from what the guest wrote, from the stage as far as it is filled, from memory, or from the store (each chunk
checked by its id). The stage is filled meanwhile; it never holds a byte that the guest wrote, so that a dropped overlay
leaves it as it is, and a kept one is merged into it or becomes a qcow2 layer over it (`finish`).

The state folder of one served disk:

    lock                held by the server; a second one is refused
    status.json         how far it is (`instant.Status`), once a second
    overlay/            what the guest wrote; made under another name and renamed, so it is whole or not there
        head.json       the disk and point that it belongs to
        data            sparse, as long as the disk: each block of 4 KiB at its own place; a hole is a block of zeros
        live            one bit a block: it is in `data`. Written after the block, before the guest gets its answer
        durable         the same, as of the last flush: written after `data` was synchronised, then synchronised
        boot            boot id of the kernel that `live` belongs to
        merging         a merge has begun: the stage may hold some of it
    overlay.new, .old   one being made, or being removed; of no meaning

What a kill leaves. *The server (SIGKILL):* `data` and `live` are in the page cache, so every acknowledged write is
there; a block whose bit was not yet set reads as before, its write was not acknowledged. *The machine (power):* `live`
is of another boot and is not looked at; `durable` names only blocks that were synchronised before, so every write
before an acknowledged flush is there, and later ones are there or not, block by block. Bits are never cleared: a
trimmed block is a hole in `data`.

The stage is that of `failback import --to files`: the file, and `.failback/NAME/` beside it
(`pipeline.transfer.stage`). While it is filled its state is `staging`, `done` says what was written and flushed; a
plain import goes on where the server ended, and the other way round. Proved, it is `staged`; with a merged overlay it
is `kept` and equals no point.
"""
