max w17, w12, w12, 0
movp p4, r12
padd p4, 96
b.ld r13, p4, 32
b.ld r3, p4, 4
paddr p4, p6, r15
padd p3, -256
acq 4, 1
movi r0, 0
movp p2, r0
acq 9, 1
a.ldwm w0, p2, m3
addi r14, r14, -2
paddr p5, p6, r14
a.ldw w0, p1, 32 | b.ldw w8, p4, 32
a.ldwm w1, p1, m0 | b.ldw w9, p4, 32
a.ldw w2, p1, 32 | b.ldw w10, p4, 32
a.ldwm w3, p1, m1 | b.ldw w11, p4, 32
a.ldw w4, p1, 32 | b.ldm m3, p5, 2
a.ldwm w5, p1, m2
a.ldw w6, p1, 32 | loop r2, 52
stbf c0, 0, p3, 32
stbf c0, 1, p3, 32 | row c0, w17
stbf c1, 0, p3, 32
stbf c1, 1, p3, 32 | row c1, w17
stbf c2, 0, p3, 32
stbf c2, 1, p3, 32 | row c2, w17
stbf c3, 0, p3, 32
stbf c3, 1, p3, 32 | row c3, w17 | loop r1, 16
a.ldwm w7, p1, m3 | b.ldw w12, p4, 32 | macbf c0, x0, x4, 0
a.ldw w0, p1, 32 | b.ldw w13, p4, 32 | macbf c0, x0, x5, 1
a.ldwm w1, p1, m0 | b.ldw w14, p4, 32 | macbf c1, x1, x4, 0
a.ldw w2, p1, 32 | b.ldw w15, p4, 32 | macbf c1, x1, x5, 1
a.ldwm w3, p1, m1 | b.ldm m4, p5, 2 | macbf c2, x2, x4, 0
a.ldw w4, p1, 32 | macbf c2, x2, x5, 1
a.ldwm w5, p1, m2 | macbf c3, x3, x4, 0
a.ldw w6, p1, 32 | macbf c3, x3, x5, 1
a.ldwm w7, p1, m4 | b.ldw w8, p4, 32 | macbf c0, x0, x6, 0
a.ldw w0, p1, 32 | b.ldw w9, p4, 32 | macbf c0, x0, x7, 1
a.ldwm w1, p1, m0 | b.ldw w10, p4, 32 | macbf c1, x1, x6, 0
a.ldw w2, p1, 32 | b.ldw w11, p4, 32 | macbf c1, x1, x7, 1
a.ldwm w3, p1, m1 | b.ldm m3, p5, 2 | macbf c2, x2, x6, 0
a.ldw w4, p1, 32 | macbf c2, x2, x7, 1
a.ldwm w5, p1, m2 | macbf c3, x3, x6, 0
a.ldw w6, p1, 32 | macbf c3, x3, x7, 1
a.ldwm w7, p1, m3 | b.ldw w12, p4, 32 | macbf c0, x0, x4, 0
a.ldw w0, p1, 32 | b.ldw w13, p4, 32 | macbf c0, x0, x5, 1
a.ldwm w1, p1, m0 | b.ldw w14, p4, 32 | macbf c1, x1, x4, 0
a.ldw w2, p1, 32 | b.ldw w15, p4, 32 | macbf c1, x1, x5, 1
a.ldwm w3, p1, m1 | b.ldw w18, p2, 32 | macbf c2, x2, x4, 0 | paddr p4, p6, r15
a.ldw w4, p1, 32 | b.ldw w19, p2, 32 | macbf c2, x2, x5, 1 | paddr p5, p6, r14
a.ldwm w5, p1, m2 | b.ldw w20, p2, 32 | macbf c3, x3, x4, 0
a.ldw w6, p1, 32 | b.ldw w21, p2, 32 | macbf c3, x3, x5, 1
a.ldwm w7, p1, m6 | b.ldw w8, p4, 32 | macbf c0, x0, x6, 0
a.ldw w0, p1, 32 | b.ldw w9, p4, 32 | macbf c0, x0, x7, 1
a.ldwm w1, p1, m0 | b.ldw w10, p4, 32 | macbf c1, x1, x6, 0
a.ldw w2, p1, 32 | b.ldw w11, p4, 32 | macbf c1, x1, x7, 1
a.ldwm w3, p1, m1 | b.ldm m3, p5, 2 | macbf c2, x2, x6, 0
a.ldw w4, p1, 32 | b.ldw w22, p2, 32 | macbf c2, x2, x7, 1
a.ldwm w5, p1, m2 | b.ldw w23, p2, 32 | macbf c3, x3, x6, 0
a.ldw w6, p1, 32 | macbf c3, x3, x7, 1
b.ldw w18, p2, 32 | addbf c0, x9
b.ldw w19, p2, 32 | addbf c1, x10
addbf c2, x11
addbf c3, x9
maxf c0, r13
maxf c1, r13
maxf c2, r13
maxf c3, r13
minf c0, r3
minf c1, r3
minf c2, r3
minf c3, r3
stbf c0, 0, p3, 32 | rel 8, 1
stbf c0, 1, p3, 32
stbf c1, 0, p3, 32
stbf c1, 1, p3, 32
stbf c2, 0, p3, 32
stbf c2, 1, p3, 32
stbf c3, 0, p3, 32
stbf c3, 1, p3, 32 | jmp 146
