# SPDX-License-Identifier: GPL-2.0-or-later
#
# Runs at the entry point, after the dynamic linker: rsp -> argc, argv.., 0, envp.., 0, auxv..; rdx is
# the linker's function for exit, to be left alone, and so are all words of the old block: the kernel
# shows its strings in /proc, and the program reads them there.
#
# Makes a copy of that block lower on the stack, with K arguments more after argv[0] and E variables more,
# without the caller's variables DENO_*, NODE_* (which can have the runtime load something, or end it),
# OTEL_DENO* (telemetry) and COMPLETE (which asks the runtime's command line for a shell's completion);
# has `environ` point to it, and goes on at the real entry point. Comparing eight bytes of a short string
# reads what follows it: the block has more behind it.
#
# Where argc is 0 (kernels before 5.18), everything is left alone.

    .text
    .globl _start
_start:
    lea   table(%rip), %r12       # K, E, entry, environ slot, offsets[K+E]; all relative to table
    mov   %rsp, %rsi
    mov   (%rsi), %rcx            # argc
    test  %rcx, %rcx
    jz    go                      # argc == 0: leave everything alone
    lea   16(%rsi,%rcx,8), %rdi   # envp
1:  mov   (%rdi), %rax
    add   $8, %rdi
    test  %rax, %rax
    jnz   1b
2:  mov   (%rdi), %rax            # auxv
    add   $16, %rdi
    test  %rax, %rax
    jnz   2b
    mov   %rdi, %r14              # end of auxv
    mov   (%r12), %r10            # K
    mov   8(%r12), %r11           # E
    sub   %rsi, %rdi
    lea   (%r10,%r11), %rax
    lea   (%rdi,%rax,8), %rax
    sub   %rax, %rsp
    and   $-16, %rsp
    mov   %rsp, %rdi
    cld
    lea   (%rcx,%r10), %rax
    stosq                         # argc + K
    add   $8, %rsi
    movsq                         # argv[0]
    lea   32(%r12), %rbx
3:  test  %r10, %r10
    jz    4f
    mov   (%rbx), %rax
    add   %r12, %rax
    stosq
    add   $8, %rbx
    dec   %r10
    jmp   3b
4:  rep movsq                     # argv[1..] and its NULL
    mov   %rdi, %r13              # new envp
    movabs $0x4554454c504d4f43, %r9   # "COMPLETE"
    movabs $0x4e45445f4c45544f, %r8   # "OTEL_DEN"
5:  lodsq
    test  %rax, %rax
    jz    7f
    mov   (%rax), %ecx
    cmp   $0x4f4e4544, %ecx       # "DENO"
    je    10f
    cmp   $0x45444f4e, %ecx       # "NODE"
    jne   6f
10: cmpb  $'_', 4(%rax)
    je    5b
6:  cmp   %r8, (%rax)
    je    5b
    cmp   %r9, (%rax)
    jne   8f
    cmpb  $'=', 8(%rax)
    je    5b
8:  stosq
    jmp   5b
7:  test  %r11, %r11
    jz    9f
    mov   (%rbx), %rax
    add   %r12, %rax
    stosq
    add   $8, %rbx
    dec   %r11
    jmp   7b
9:  xor   %eax, %eax
    stosq
    mov   %r14, %rcx
    sub   %rsi, %rcx
    shr   $3, %rcx
    rep movsq                     # auxv
    mov   24(%r12), %rax          # GOT slot of environ
    test  %rax, %rax
    jz    go
    mov   (%r12,%rax), %rax
    mov   %r13, (%rax)            # environ = new envp
go: mov   16(%r12), %rax          # the real entry
    add   %r12, %rax
    xor   %ebp, %ebp
    jmp   *%rax
    .balign 8
table:
