"builtin.module"() ({
  "aie.device"() <{device = 4 : i32, sym_name = "main"}> ({
    %tile_1_0 = "aie.tile"() <{col = 1 : i32, row = 0 : i32}> : () -> index
    %tile_1_1 = "aie.tile"() <{col = 1 : i32, row = 1 : i32}> : () -> index
    %tile_1_2 = "aie.tile"() <{col = 1 : i32, row = 2 : i32}> : () -> index
    %tile_1_3 = "aie.tile"() <{col = 1 : i32, row = 3 : i32}> : () -> index
    %lock_1_1_0 = "aie.lock"(%tile_1_1) <{init = 0 : i32, lockID = 0 : i32}> : (index) -> index
    %lock_1_3_0 = "aie.lock"(%tile_1_3) <{init = 0 : i32, lockID = 0 : i32}> : (index) -> index
    %lock_1_3_1 = "aie.lock"(%tile_1_3) <{init = 0 : i32, lockID = 1 : i32}> : (index) -> index
    %lock_1_3_6 = "aie.lock"(%tile_1_3) <{init = 0 : i32, lockID = 6 : i32}> : (index) -> index
    %lock_1_3_7 = "aie.lock"(%tile_1_3) <{init = 0 : i32, lockID = 7 : i32}> : (index) -> index
    %buffer_1_1_0 = "aie.buffer"(%tile_1_1) <{address = 0 : i32, sym_name = "buffer_1_1_0"}> : (index) -> memref<32xi32>
    %buffer_1_3_0 = "aie.buffer"(%tile_1_3) <{address = 1024 : i32, sym_name = "buffer_1_3_0"}> : (index) -> memref<32xi32>
    %buffer_1_3_1 = "aie.buffer"(%tile_1_3) <{address = 65280 : i32, sym_name = "buffer_1_3_1"}> : (index) -> memref<2xi32>
    "aie.flow"(%tile_1_0, %tile_1_1) <{dest_bundle = 1 : i32, dest_channel = 0 : i32, source_bundle = 1 : i32, source_channel = 0 : i32}> : (index, index) -> ()
    "aie.flow"(%tile_1_1, %tile_1_3) <{dest_bundle = 1 : i32, dest_channel = 0 : i32, source_bundle = 1 : i32, source_channel = 0 : i32}> : (index, index) -> ()
    "aie.flow"(%tile_1_3, %tile_1_0) <{dest_bundle = 1 : i32, dest_channel = 0 : i32, source_bundle = 1 : i32, source_channel = 0 : i32}> : (index, index) -> ()
    %core_1_3 = "aie.core"(%tile_1_3) <{elf_file = "../core.bin"}> ({
      "aie.end"() : () -> ()
    }) : (index) -> index
    "memref.global"() <{constant, initial_value = dense<[1, -1]> : tensor<2xi32>, sym_name = "blockwrite_data_0", sym_visibility = "private", type = memref<2xi32>}> : () -> ()
    "memref.global"() <{constant, initial_value = dense<[32, 131072, 262144, 524295, 524289, 31, 0, -2147418304]> : tensor<8xi32>, sym_name = "blockwrite_data_1", sym_visibility = "private", type = memref<8xi32>}> : () -> ()
    "aie.runtime_sequence"() <{sym_name = "sequence"}> ({
    ^bb0(%arg0: memref<16xi32>, %arg1: memref<64xi32>):
      %c204800 = "arith.constant"() <{value = 204800 : i32}> : () -> i32
      %c1 = "arith.constant"() <{value = 1 : i32}> : () -> i32
      %c0 = "arith.constant"() <{value = 0 : i32}> : () -> i32
      %c16 = "arith.constant"() <{value = 16 : i32}> : () -> i32
      %blockwrite_data_0 = "memref.get_global"() <{name = @blockwrite_data_0}> : () -> memref<2xi32>
      %blockwrite_data_1 = "memref.get_global"() <{name = @blockwrite_data_1}> : () -> memref<8xi32>
      "aiex.npu.write32"(%c204800, %c1) <{column = 1 : i32, row = 3 : i32}> : (i32, i32) -> ()
      "aiex.set_lock"(%lock_1_1_0) <{value = 0 : i32}> : (index) -> ()
      "aiex.npu.blockwrite"(%blockwrite_data_0) <{address = 65280 : ui32, column = 1 : i32, row = 3 : i32}> : (memref<2xi32>) -> ()
      // tile (1,3), bd 0: base 0x100, length 32, acquire 0 >= 1, release 1 +1
      "aiex.npu.writebd"() <{bd_id = 0 : i32, buffer_length = 32 : i32, buffer_offset = 1024 : i32, column = 1 : i32, d0_size = 0 : i32, d0_stride = 0 : i32, d0_zero_after = 0 : i32, d0_zero_before = 0 : i32, d1_size = 0 : i32, d1_stride = 0 : i32, d1_zero_after = 0 : i32, d1_zero_before = 0 : i32, d2_size = 0 : i32, d2_stride = 0 : i32, d2_zero_after = 0 : i32, d2_zero_before = 0 : i32, enable_packet = 0 : i32, iteration_current = 0 : i32, iteration_size = 0 : i32, iteration_stride = 0 : i32, lock_acq_enable = 1 : i32, lock_acq_id = 0 : i32, lock_acq_val = -1 : i32, lock_rel_id = 1 : i32, lock_rel_val = 1 : i32, next_bd = 0 : i32, out_of_order_id = 0 : i32, packet_id = 0 : i32, packet_type = 0 : i32, row = 3 : i32, use_next_bd = 0 : i32, valid_bd = 1 : i32}> : () -> ()
      "aiex.npu.push_queue"(%c1, %c0) <{channel = 0 : i32, column = 1 : i32, direction = 0 : i32, issue_token = false, row = 3 : i32}> : (i32, i32) -> ()
      // tile (1,1), bd 0: base 0x20000, length 32, release 64 +1
      "aiex.npu.writebd"() <{bd_id = 0 : i32, buffer_length = 32 : i32, buffer_offset = 131072 : i32, column = 1 : i32, d0_size = 0 : i32, d0_stride = 0 : i32, d0_zero_after = 0 : i32, d0_zero_before = 0 : i32, d1_size = 0 : i32, d1_stride = 0 : i32, d1_zero_after = 0 : i32, d1_zero_before = 0 : i32, d2_size = 0 : i32, d2_stride = 0 : i32, d2_zero_after = 0 : i32, d2_zero_before = 0 : i32, enable_packet = 0 : i32, iteration_current = 0 : i32, iteration_size = 0 : i32, iteration_stride = 0 : i32, lock_acq_enable = 0 : i32, lock_acq_id = 0 : i32, lock_acq_val = 0 : i32, lock_rel_id = 64 : i32, lock_rel_val = 1 : i32, next_bd = 0 : i32, out_of_order_id = 0 : i32, packet_id = 0 : i32, packet_type = 0 : i32, row = 1 : i32, use_next_bd = 0 : i32, valid_bd = 1 : i32}> : () -> ()
      "aiex.npu.push_queue"(%c0, %c0) <{channel = 0 : i32, column = 1 : i32, direction = 0 : i32, issue_token = false, row = 1 : i32}> : (i32, i32) -> ()
      // tile (1,1), bd 1: base 0x20000, length 32, d0 2x1, d1 4x8, d2 4x2, d3 -x32, acquire 64 >= 1
      "aiex.npu.blockwrite"(%blockwrite_data_1) <{address = 655392 : ui32, column = 1 : i32, row = 1 : i32}> : (memref<8xi32>) -> ()
      "aiex.npu.push_queue"(%c0, %c1) <{channel = 0 : i32, column = 1 : i32, direction = 1 : i32, issue_token = false, row = 1 : i32}> : (i32, i32) -> ()
      // tile (1,0), bd 0: base 0x0, length 32
      "aiex.npu.writebd"() <{bd_id = 0 : i32, buffer_length = 32 : i32, buffer_offset = 0 : i32, burst_length = 256 : i32, column = 1 : i32, d0_size = 0 : i32, d0_stride = 0 : i32, d0_zero_after = 0 : i32, d0_zero_before = 0 : i32, d1_size = 0 : i32, d1_stride = 0 : i32, d1_zero_after = 0 : i32, d1_zero_before = 0 : i32, d2_size = 0 : i32, d2_stride = 0 : i32, d2_zero_after = 0 : i32, d2_zero_before = 0 : i32, enable_packet = 0 : i32, iteration_current = 0 : i32, iteration_size = 0 : i32, iteration_stride = 0 : i32, lock_acq_enable = 0 : i32, lock_acq_id = 0 : i32, lock_acq_val = 0 : i32, lock_rel_id = 0 : i32, lock_rel_val = 0 : i32, next_bd = 0 : i32, out_of_order_id = 0 : i32, packet_id = 0 : i32, packet_type = 0 : i32, row = 0 : i32, use_next_bd = 0 : i32, valid_bd = 1 : i32}> : () -> ()
      "aiex.npu.address_patch"(%c16) <{addr = 33673220 : ui32, arg_idx = 0 : i32}> : (i32) -> ()
      "aiex.npu.push_queue"(%c0, %c0) <{channel = 0 : i32, column = 1 : i32, direction = 1 : i32, issue_token = false, row = 0 : i32}> : (i32, i32) -> ()
      // tile (1,0), bd 1: base 0x0, length 32
      "aiex.npu.writebd"() <{bd_id = 1 : i32, buffer_length = 32 : i32, buffer_offset = 0 : i32, burst_length = 256 : i32, column = 1 : i32, d0_size = 0 : i32, d0_stride = 0 : i32, d0_zero_after = 0 : i32, d0_zero_before = 0 : i32, d1_size = 0 : i32, d1_stride = 0 : i32, d1_zero_after = 0 : i32, d1_zero_before = 0 : i32, d2_size = 0 : i32, d2_stride = 0 : i32, d2_zero_after = 0 : i32, d2_zero_before = 0 : i32, enable_packet = 0 : i32, iteration_current = 0 : i32, iteration_size = 0 : i32, iteration_stride = 0 : i32, lock_acq_enable = 0 : i32, lock_acq_id = 0 : i32, lock_acq_val = 0 : i32, lock_rel_id = 0 : i32, lock_rel_val = 0 : i32, next_bd = 0 : i32, out_of_order_id = 0 : i32, packet_id = 0 : i32, packet_type = 0 : i32, row = 0 : i32, use_next_bd = 0 : i32, valid_bd = 1 : i32}> : () -> ()
      "aiex.npu.address_patch"(%c0) <{addr = 33673252 : ui32, arg_idx = 1 : i32}> : (i32) -> ()
      "aiex.npu.push_queue"(%c0, %c1) <{channel = 0 : i32, column = 1 : i32, direction = 0 : i32, issue_token = true, row = 0 : i32}> : (i32, i32) -> ()
      "aiex.npu.sync"(%c1, %c0, %c0, %c0, %c1, %c1) : (i32, i32, i32, i32, i32, i32) -> ()
    }) : () -> ()
    "aie.end"() : () -> ()
  }) : () -> ()
}) : () -> ()
