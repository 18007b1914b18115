"""How each op runs on the CPU, one a file: legal layouts, schedule, and the kernel calls; `registry` finds them."""
