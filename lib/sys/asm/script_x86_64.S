# SPDX-License-Identifier: GPL-2.0-or-later
#
# long run(struct entry *table, long count): the syscall script runner (see ../script.ts).
# Entry, 72 bytes: 0 number, 8…55 six arguments, 56 result, 64 control word, 68 offset, from the
# table's start, of an earlier result to be used as first argument (0: none).
# Control: bit 0 return when not zero (before the result is stored), bit 1 exit when negative,
# bit 2 exit when zero, bit 3 exit with 0 when positive (before the result is stored),
# bits 8–15 exit status, bits 16–31 errno that is no reason to exit.
# Position-independent; no memory but the table and the stack is touched.
#
# rbx = entry, rbp = entries left, r12 = table

    push %rbx
    push %rbp
    push %r12
    mov %rdi, %rbx
    mov %rdi, %r12
    mov %rsi, %rbp
loop:
    test %rbp, %rbp
    jz done
    mov (%rbx), %rax
    mov 8(%rbx), %rdi
    mov 16(%rbx), %rsi
    mov 24(%rbx), %rdx
    mov 32(%rbx), %r10
    mov 40(%rbx), %r8
    mov 48(%rbx), %r9
    mov 68(%rbx), %ecx
    test %ecx, %ecx
    jz call
    mov (%r12, %rcx), %rdi
call:
    syscall
    mov 64(%rbx), %edx
    test $1, %dl
    jz positive
    test %rax, %rax
    jnz done
positive:
    test $8, %dl
    jz store
    xor %edi, %edi
    test %rax, %rax
    jg leave
store:
    mov %rax, 56(%rbx)
    test $4, %dl
    jz negative
    test %rax, %rax
    jz exit
negative:
    test $2, %dl
    jz next
    test %rax, %rax
    jns next
    mov %edx, %ecx
    shr $16, %ecx
    neg %rax
    cmp %rcx, %rax
    je next
exit:
    movzbl %dh, %edi
leave:
    mov $231, %eax              # exit_group
    syscall
next:
    add $72, %rbx
    dec %rbp
    jmp loop
done:
    pop %r12
    pop %rbp
    pop %rbx
    ret
