a.ldwm w2, p1, m0 | b.ldwr w10, p4, l9, 32 | movp p3, r10
a.ldwm w3, p1, m2 | b.ldwr w11, p4, l9, -128 | paddr p2, p3, r25
a.ldwm w4, p1, m0 | b.ldqr y0, p4, l9, 192 | acq 4, 2
a.ldwm w5, p1, m7 | b.ldw w13, p0, 32 | movp p7, r24
a.ldwm w6, p1, m0 | b.ldm m3, p5, -2 | acq 9, 2
b.ldwr w14, p4, l9, 32
b.ldh r16, p6, 2
b.ldh r27, p6, 2
b.ldh r7, p6, -6
b.ldp p0, p6, 2 | loop r2, 58
b.ldw w18, p7, 32 | row c8, w12
a.ldwm w7, p1, m5 | b.ldwr w15, p4, l9, 32 | srs c0, p3, r3, 0, 32 | macspc c0, c8, x0, x4, q0, 0
a.ldwm w0, p1, m0 | b.ldwr w16, p4, l9, 32 | srs c4, p2, r3, 0, 32 | mulsp c4, x0, x5, q1, 0
a.ldwm w1, p1, m1 | b.ldwr w17, p4, l9, -128 | srs c1, p3, r3, 0, 32 | macspc c1, c8, x1, x4, q0, 0
a.ldwm w2, p1, m0 | b.ldqr y1, p4, l9, 192 | srs c5, p2, r3, 0, 32 | mulsp c5, x1, x5, q1, 0
a.ldwm w3, p1, m2 | srs c2, p3, r3, 0, 32 | macspc c2, c8, x2, x4, q0, 0
a.ldwm w4, p1, m0 | srs c6, p2, r3, 0, 32 | mulsp c6, x2, x5, q1, 0
a.ldwm w5, p1, m7 | srs c3, p3, r3, 0, 32 | macspc c3, c8, x3, x4, q0, 0
a.ldwm w6, p1, m0 | b.ldwr w8, p4, l9, 32 | srs c7, p2, r3, 0, 32 | mulsp c7, x3, x5, q1, 0
a.ldwm w7, p1, m3 | b.ldwr w9, p4, l9, 32 | macsp c0, x0, x7, q2, 0
a.ldwm w0, p1, m0 | b.ldwr w10, p4, l9, 32 | macsp c4, x0, x8, q3, 0
a.ldwm w1, p1, m1 | b.ldwr w11, p4, l9, -128 | macsp c1, x1, x7, q2, 0
a.ldwm w2, p1, m0 | b.ldqr y0, p4, l9, 192 | macsp c5, x1, x8, q3, 0
a.ldwm w3, p1, m2 | b.ldm m4, p5, -74 | macsp c2, x2, x7, q2, 0
a.ldwm w4, p1, m0 | b.ldw w19, p0, 32 | macsp c6, x2, x8, q3, 0
a.ldwm w5, p1, m7 | b.ldw w20, p7, 32 | macsp c3, x3, x7, q2, 0
a.ldwm w6, p1, m0 | b.ldwr w14, p4, l9, 32 | macsp c7, x3, x8, q3, 0 | loop r1, 16
a.ldwm w7, p1, m4 | b.ldwr w15, p4, l9, 32 | macsp c0, x0, x4, q0, 0
a.ldwm w0, p1, m0 | b.ldwr w16, p4, l9, 32 | macsp c4, x0, x5, q1, 0
a.ldwm w1, p1, m1 | b.ldwr w17, p4, l9, -128 | macsp c1, x1, x4, q0, 0
a.ldwm w2, p1, m0 | b.ldqr y1, p4, l9, 192 | macsp c5, x1, x5, q1, 0
a.ldwm w3, p1, m2 | b.ldm m3, p5, -2 | macsp c2, x2, x4, q0, 0
a.ldwm w4, p1, m0 | macsp c6, x2, x5, q1, 0
a.ldwm w5, p1, m7 | macsp c3, x3, x4, q0, 0
a.ldwm w6, p1, m0 | b.ldwr w8, p4, l9, 32 | macsp c7, x3, x5, q1, 0
a.ldwm w7, p1, m3 | b.ldwr w9, p4, l9, 32 | macsp c0, x0, x7, q2, 0
a.ldwm w0, p1, m0 | b.ldwr w10, p4, l9, 32 | macsp c4, x0, x8, q3, 0
a.ldwm w1, p1, m1 | b.ldwr w11, p4, l9, -128 | macsp c1, x1, x7, q2, 0
a.ldwm w2, p1, m0 | b.ldqr y0, p4, l9, 192 | macsp c5, x1, x8, q3, 0
a.ldwm w3, p1, m2 | b.ldm m4, p5, -2 | macsp c2, x2, x7, q2, 0
a.ldwm w4, p1, m0 | macsp c6, x2, x8, q3, 0
a.ldwm w5, p1, m7 | macsp c3, x3, x7, q2, 0
a.ldwm w6, p1, m0 | b.ldwr w14, p4, l9, 32 | macsp c7, x3, x8, q3, 0
b.ldw w21, p0, 32 | row c8, w13
b.ldw w22, p7, 32 | ups c0, w18, r13, 0
b.ldw w23, p0, 32 | ups c4, w19, r13, 0
b.ldw w18, p7, 32 | ups c1, w20, r13, 0
b.ldw w19, p0, 32 | ups c5, w21, r13, 0
ups c2, w22, r13, 0
ups c6, w23, r13, 0
ups c3, w18, r13, 0
ups c7, w19, r13, 0
a.ldwm w7, p1, m4 | b.ldwr w15, p4, l9, 32 | macsp c0, x0, x4, q0, 0
a.ldwm w0, p1, m0 | b.ldwr w16, p4, l9, 32 | macsp c4, x0, x5, q1, 0
a.ldwm w1, p1, m1 | b.ldwr w17, p4, l9, -128 | macsp c1, x1, x4, q0, 0
a.ldwm w2, p1, m0 | b.ldqr y1, p4, l9, 192 | macsp c5, x1, x5, q1, 0
a.ldwm w3, p1, m2 | macsp c2, x2, x4, q0, 0 | paddr p4, p6, r15
a.ldwm w4, p1, m0 | macsp c6, x2, x5, q1, 0 | paddr p5, p6, r31
a.ldwm w5, p1, m7 | b.ldm m3, p5, -2 | macsp c3, x3, x4, q0, 0 | addl r14, r8, r16, l9
a.ldwm w6, p1, m0 | b.ldwr w8, p4, l9, 32 | macsp c7, x3, x5, q1, 0
a.ldwm w7, p1, m6 | b.ldwr w9, p4, l9, 32 | macsp c0, x0, x7, q2, 0
a.ldwm w0, p1, m0 | b.ldwr w10, p4, l9, 32 | addmacsp c4, c4, c8, x0, x8, q3, 0
a.ldwm w1, p1, m1 | b.ldwr w11, p4, l9, -128 | macsp c1, x1, x7, q2, 0
a.ldwm w2, p1, m0 | b.ldqr y0, p4, l9, 192 | addmacsp c5, c5, c8, x1, x8, q3, 0
a.ldwm w3, p1, m2 | macsp c2, x2, x7, q2, 0
a.ldwm w4, p1, m0 | addmacsp c6, c6, c8, x2, x8, q3, 0
a.ldwm w5, p1, m7 | macsp c3, x3, x7, q2, 0
a.ldwm w6, p1, m0 | b.ldwr w14, p4, l9, 32 | addmacsp c7, c7, c8, x3, x8, q3, 0
srs c0, p3, r3, 0, 32 | jzd r5, 175
srs c4, p2, r3, 0, 32 | rel 8, 2
srs c1, p3, r3, 0, 32 | movp p0, r14
srs c5, p2, r3, 0, 32 | loop r9, 1
acqr 3, r27
b.ldm m3, p0, 2 | srs c2, p3, r3, 0, 32 | movp p1, r6
b.ldh r0, p0, 2 | srs c6, p2, r3, 0, 32 | paddr p6, p0, r21
b.ldh r1, p0, 2 | srs c3, p3, r3, 0, 32 | relr 2, r7
b.ldm m6, p0, 2 | srs c7, p2, r3, 0, 32 | mov r8, r14
a.ldwm w0, p1, m3 | b.ldm m5, p0, 2 | paddr p4, p6, r15
a.ldwm w0, p1, m0 | b.ldh r24, p0, -54 | paddr p5, p6, r31
a.ldwm w1, p1, m1 | b.ldwr w8, p4, l9, 32 | rel 5, 2
b.ldwr w9, p4, l9, 32 | sub r10, r11, r10
b.ldw w12, p0, -32 | jmpr r0
srs c4, p2, r3, 0, 32 | rel 8, 2
srs c1, p3, r3, 0, 32
srs c5, p2, r3, 0, 32
srs c2, p3, r3, 0, 32
srs c6, p2, r3, 0, 32
srs c3, p3, r3, 0, 32
srs c7, p2, r3, 0, 32 | jmp 49
