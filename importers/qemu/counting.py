"""A boot sector that counts, to see how fast a processor is: 20 million times in each of the modes that machines boot
through, 32 bits without paging (firmware, boot loaders) and 64 bits with it (systems). Then it says so on port 0x402.
"""

from __future__ import annotations

SAYS = b"counted"

_CODE = bytes.fromhex(
    "fa31c08ed80f0116c87c0f20c00c010f22c0ea177c080066b810008ed88ec0b9002d31014975fd31c0bf00100000b900"
    "0c0000f3abc7050010000003200000c7050020000003300000c7050030000083000000b8001000000f22d80f20e00c20"
    "0f22e0b9800000c00f3280cc010f300f20c00d000000800f22c0ea817c00001800b9002d3101ffc975fcbe9c7c000066"
    "ba0204acee84c075faf4ebfd636f756e746564000f1f40000000000000000000ffff0000009acf00ffff00000092cf00"
    "00000000009a20001f00a87c0000"
)
"""SOURCE, by `as --64` and `ld -e start -Ttext=0x7c00 --oformat binary`."""

SOURCE = r"""
.intel_syntax noprefix
.code16
start:
    cli
    xor ax, ax
    mov ds, ax
    lgdt [gdtr]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    ljmp 0x08, protected
.code32
protected:
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ecx, 20000000
1:  dec ecx
    jnz 1b
    xor eax, eax
    mov edi, 0x1000
    mov ecx, 0xc00
    rep stosd
    mov dword ptr [0x1000], 0x2003
    mov dword ptr [0x2000], 0x3003
    mov dword ptr [0x3000], 0x83
    mov eax, 0x1000
    mov cr3, eax
    mov eax, cr4
    or al, 0x20
    mov cr4, eax
    mov ecx, 0xc0000080
    rdmsr
    or ah, 1
    wrmsr
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    ljmp 0x18, long
.code64
long:
    mov ecx, 20000000
1:  dec ecx
    jnz 1b
    mov esi, offset said
    mov dx, 0x402
1:  lodsb
    out dx, al
    test al, al
    jnz 1b
1:  hlt
    jmp 1b
said: .asciz "counted"
.align 8
gdt: .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff, 0x00209a0000000000
gdtr: .word 31
      .long gdt
"""


def image() -> bytes:
    """A disk that BIOSes start from: they read none below a cylinder, half a MiB."""
    return (_CODE.ljust(510, b"\0") + b"\x55\xaa").ljust(1 << 20, b"\0")
