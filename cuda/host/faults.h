/*
 * Failures on demand: the one function that the stand-in has beyond tandem_cuda.h. Faults are the process's, whichever engine meets them.
 *
 * A fault is armed with a countdown: 1 is the next event of its kind, 2 the one after that. Arming again replaces the countdown, 0 disarms.
 */
#pragma once
#include <stdint.h>

enum fault {
  FAULT_NONE = 0,    /* disarms all and lets a lost or absent device come back */
  FAULT_STAGE = 1,   /* n-th stage: as an error of the driver. tcu_is_idle and every later call answer TCU_DEVICE; the step still ends, with *status */
  FAULT_LOST = 2,    /* n-th stage: nothing runs any more, the step never ends; every later call answers TCU_LOST, tcu_open too */
  FAULT_PUBLISH = 3, /* n-th hand-off: the word is not written, so it never comes */
  FAULT_HANG = 4,    /* n-th stage: it runs until the engine is closed */
  FAULT_MEMORY = 5,  /* n-th tcu_memory: TCU_MEMORY */
  FAULT_ABSENT = 6,  /* from the n-th tcu_device_count, tcu_device_info or tcu_open on all of them answer TCU_ABSENT */
  FAULTS = 7,
};

#ifdef __cplusplus
extern "C" {
#endif
/* `kind`: an enum fault. Stages are embed, attention, dense ffn, router, shared experts, routed experts, combine and head, as they are run. */
int tcu_host_fault(int32_t kind, int32_t countdown);
#ifdef __cplusplus
}

/* True when this event is the one that a fault was armed for. */
bool fault_hits(fault kind);
/* True after FAULT_LOST has hit. */
bool is_lost();
#endif
