# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The boot sector of virmirror.testguest: a guest that does nothing but write.
#
# Round c (1, 2, 3, ...) writes one 8 KiB block to slot (c - 1) % 256 of a ring
# that starts at 1 MiB, on each BIOS disk in turn, and then sends one '.' to
# COM1.  A block is 1024 times the eight bytes <c, little endian> "VMR" <drive>,
# so that a lost, stale, torn or misplaced block can be told apart on the
# stopped disk.  After a write error it sends 'E' and tries that round again.
#
#   as --32 -o writer.o writer.S
#   ld -m elf_i386 --oformat binary -Ttext 0x7c00 -o writer.bin writer.o
#
# Keep BOOT_SECTOR in python/virmirror/testguest.py equal to the result; a unit
# test compares them.

        .code16
        .globl  _start

        .set    BLOCK_SEGMENT, 0x1000   # the block lies at linear 64 KiB
        .set    BLOCK_SECTORS, 16
        .set    RING_SECTOR, 2048       # 1 MiB
        .set    RING_MASK, 255
        .set    COM1, 0x3f8
        .set    BIOS_DISKS, 0x475       # BIOS data area: number of hard disks

_start:
        cli
        xorw    %ax, %ax
        movw    %ax, %ds
        movw    %ax, %ss
        movw    $0x7c00, %sp
        movw    $BLOCK_SEGMENT, %ax
        movw    %ax, %es
        sti
        cld
        movb    BIOS_DISKS, %bh         # bh: drives to write to
        movb    disk_limit, %al
        testb   %al, %al
        jz      unlimited
        cmpb    %al, %bh
        jbe     unlimited
        movb    %al, %bh
unlimited:
        xorl    %ebp, %ebp              # ebp: the round, counted from 1

next_round:
        incl    %ebp
again:
        movb    $0, %bl                 # bl: the drive, counted from 0
next_drive:
        # The first eight bytes of the block; the overlapping copy repeats them.
        xorw    %di, %di
        movl    %ebp, %eax
        stosl
        movl    $0x00524d56, %eax       # "VMR", and the drive as the last byte
        stosl
        movb    %bl, %es:-1(%di)
        xorw    %si, %si
        movw    $(BLOCK_SECTORS * 512 / 4 - 2), %cx
        rep movsl %es:(%si), %es:(%di)

        movl    %ebp, %eax
        decl    %eax
        andl    $RING_MASK, %eax
        shll    $4, %eax
        addl    $RING_SECTOR, %eax
        movl    %eax, packet_sector
        # The BIOS may change it to the number of sectors done.
        movw    $BLOCK_SECTORS, packet_count
        movw    $0x4300, %ax            # extended write, no verify
        movb    %bl, %dl
        orb     $0x80, %dl
        movw    $packet, %si
        pushw   %bx
        pushl   %ebp
        pushw   %es
        int     $0x13
        popw    %es
        popl    %ebp
        popw    %bx
        movb    $'E', %cl
        jc      failed
        incb    %bl
        cmpb    %bh, %bl
        jb      next_drive

        movb    $'.', %cl
        call    send
        jmp     next_round

failed:
        call    send
        jmp     again

# Sends cl to COM1.
send:
        movw    $(COM1 + 5), %dx
1:      inb     %dx, %al
        testb   $0x20, %al              # transmitter empty
        jz      1b
        movw    $COM1, %dx
        movb    %cl, %al
        outb    %al, %dx
        ret

        .balign 4, 0                    # not with one of several kinds of nop
packet: .byte   16, 0
packet_count:
        .word   BLOCK_SECTORS
        .word   0, BLOCK_SEGMENT
packet_sector:
        .long   0, 0

        # At byte 508 of the sector, where make_chain() finds it.
        .org    _start + 508
disk_limit:
        .byte   0, 0                    # write to that many disks; 0: to all
        .word   0xaa55
