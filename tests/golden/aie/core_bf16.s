a.ldw w2, p1, 32 | b.ldwr w10, p4, l9, 32 | movp p3, r10
a.ldwm w3, p1, m2 | b.ldwr w11, p4, l9, 32 | acq 4, 1
a.ldw w4, p1, 32 | b.ldm m3, p5, -2 | movp p4, r12
a.ldwm w5, p1, m7 | padd p4, 128
b.ld r25, p4, 32 | movp p2, r24
b.ld r30, p4, 4 | acq 9, 1
b.ldh r16, p6, 2 | paddr p4, p6, r15
b.ldh r27, p6, 2 | padd p4, 128
a.ldw w6, p1, 32 | b.ldh r7, p6, -4 | row c8, w12 | loop r2, 56
a.ldwm w7, p1, m5 | b.ldwr w12, p4, l9, 32 | stbf c4, 0, p3, 32 | macbfc c0, c8, x0, x4, 0
a.ldw w0, p1, 32 | b.ldwr w13, p4, l9, 32 | stbf c4, 1, p3, 32 | macbfc c0, c8, x0, x5, 1
a.ldwm w1, p1, m1 | b.ldwr w14, p4, l9, 32 | stbf c5, 0, p3, 32 | macbfc c1, c8, x1, x4, 0
a.ldw w2, p1, 32 | b.ldwr w15, p4, l9, 32 | stbf c5, 1, p3, 32 | macbfc c1, c8, x1, x5, 1
a.ldwm w3, p1, m2 | b.ldbf c4, 0, p2, 32 | stbf c6, 0, p3, 32 | macbfc c2, c8, x2, x4, 0
a.ldw w4, p1, 32 | b.ldbf c4, 1, p2, 32 | stbf c6, 1, p3, 32 | macbfc c2, c8, x2, x5, 1
a.ldwm w5, p1, m7 | b.ldbf c5, 0, p2, 32 | stbf c7, 0, p3, 32 | macbfc c3, c8, x3, x4, 0
a.ldw w6, p1, 32 | b.ldbf c5, 1, p2, 32 | stbf c7, 1, p3, 32 | macbfc c3, c8, x3, x5, 1
a.ldwm w7, p1, m3 | b.ldwr w8, p4, l9, 32 | macbf c0, x0, x6, 0
a.ldw w0, p1, 32 | b.ldwr w9, p4, l9, 32 | macbf c0, x0, x7, 1
a.ldwm w1, p1, m1 | b.ldwr w10, p4, l9, 32 | macbf c1, x1, x6, 0
a.ldw w2, p1, 32 | b.ldwr w11, p4, l9, 32 | macbf c1, x1, x7, 1
a.ldwm w3, p1, m2 | b.ldm m4, p5, -42 | macbf c2, x2, x6, 0
a.ldw w4, p1, 32 | b.ldbf c6, 0, p2, 32 | macbf c2, x2, x7, 1
a.ldwm w5, p1, m7 | b.ldbf c6, 1, p2, 32 | macbf c3, x3, x6, 0
a.ldw w6, p1, 32 | b.ldbf c7, 0, p2, 32 | macbf c3, x3, x7, 1 | loop r1, 16
a.ldwm w7, p1, m4 | b.ldwr w12, p4, l9, 32 | macbf c0, x0, x4, 0
a.ldw w0, p1, 32 | b.ldwr w13, p4, l9, 32 | macbf c0, x0, x5, 1
a.ldwm w1, p1, m1 | b.ldwr w14, p4, l9, 32 | macbf c1, x1, x4, 0
a.ldw w2, p1, 32 | b.ldwr w15, p4, l9, 32 | macbf c1, x1, x5, 1
a.ldwm w3, p1, m2 | b.ldm m3, p5, -2 | macbf c2, x2, x4, 0
a.ldw w4, p1, 32 | macbf c2, x2, x5, 1
a.ldwm w5, p1, m7 | macbf c3, x3, x4, 0
a.ldw w6, p1, 32 | macbf c3, x3, x5, 1
a.ldwm w7, p1, m3 | b.ldwr w8, p4, l9, 32 | macbf c0, x0, x6, 0
a.ldw w0, p1, 32 | b.ldwr w9, p4, l9, 32 | macbf c0, x0, x7, 1
a.ldwm w1, p1, m1 | b.ldwr w10, p4, l9, 32 | macbf c1, x1, x6, 0
a.ldw w2, p1, 32 | b.ldwr w11, p4, l9, 32 | macbf c1, x1, x7, 1
a.ldwm w3, p1, m2 | b.ldm m4, p5, -2 | macbf c2, x2, x6, 0
a.ldw w4, p1, 32 | macbf c2, x2, x7, 1
a.ldwm w5, p1, m7 | macbf c3, x3, x6, 0
a.ldw w6, p1, 32 | macbf c3, x3, x7, 1
a.ldwm w7, p1, m4 | b.ldwr w12, p4, l9, 32 | macbf c0, x0, x4, 0
a.ldw w0, p1, 32 | b.ldwr w13, p4, l9, 32 | macbf c0, x0, x5, 1
a.ldwm w1, p1, m1 | b.ldwr w14, p4, l9, 32 | macbf c1, x1, x4, 0
a.ldw w2, p1, 32 | b.ldwr w15, p4, l9, 32 | macbf c1, x1, x5, 1
a.ldwm w3, p1, m2 | b.ldbf c7, 1, p2, 32 | macbf c2, x2, x4, 0 | paddr p4, p6, r15
a.ldw w4, p1, 32 | macbf c2, x2, x5, 1 | paddr p5, p6, r31
a.ldwm w5, p1, m7 | macbf c3, x3, x4, 0 | addl r14, r8, r16, l9
a.ldw w6, p1, 32 | macbf c3, x3, x5, 1 | movp p0, r14
a.ldwm w7, p1, m6 | addmacbf c4, c0, c4, x0, x6, 0
a.ldw w0, p1, 32 | b.ldm m3, p5, -2 | addmacbf c4, c0, c4, x0, x7, 1
a.ldwm w1, p1, m1 | b.ldwr w8, p4, l9, 32 | addmacbf c5, c1, c5, x1, x6, 0
a.ldw w2, p1, 32 | b.ldwr w9, p4, l9, 32 | addmacbf c5, c1, c5, x1, x7, 1
a.ldwm w3, p1, m2 | b.ldwr w10, p4, l9, 32 | addmacbf c6, c2, c6, x2, x6, 0
a.ldw w4, p1, 32 | b.ldwr w11, p4, l9, 32 | addmacbf c6, c2, c6, x2, x7, 1
a.ldwm w5, p1, m7 | addmacbf c7, c3, c7, x3, x6, 0
a.ldw w6, p1, 32 | addmacbf c7, c3, c7, x3, x7, 1
maxf c4, r25
maxf c5, r25
maxf c6, r25
maxf c7, r25
minf c4, r30
minf c5, r30
minf c6, r30
minf c7, r30
stbf c4, 0, p3, 32 | jzd r5, 167
stbf c4, 1, p3, 32 | rel 8, 1
stbf c5, 0, p3, 32 | loop r9, 1
acqr 3, r27
b.ldm m3, p0, 2 | stbf c5, 1, p3, 32 | movp p1, r6
b.ldh r0, p0, 2 | stbf c6, 0, p3, 32 | paddr p6, p0, r21
b.ldh r1, p0, 2 | stbf c6, 1, p3, 32 | relr 2, r7
b.ldm m6, p0, 2 | stbf c7, 0, p3, 32 | mov r8, r14
a.ldwm w0, p1, m3 | b.ldm m5, p0, 2 | stbf c7, 1, p3, 32 | paddr p4, p6, r15
a.ldwm w0, p1, m0 | b.ldh r24, p0, -54 | paddr p5, p6, r31
a.ldwm w1, p1, m1 | b.ldwr w8, p4, l9, 32 | rel 5, 1
b.ldwr w9, p4, l9, 32 | sub r10, r11, r10
b.ldw w12, p0, -32 | jmpr r0
stbf c4, 1, p3, 32 | rel 8, 1
stbf c5, 0, p3, 32
stbf c5, 1, p3, 32
stbf c6, 0, p3, 32
stbf c6, 1, p3, 32
stbf c7, 0, p3, 32
stbf c7, 1, p3, 32 | jmp 48
