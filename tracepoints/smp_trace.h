/* SPDX-License-Identifier: MIT */
/*
 * The TRC_HW_SMP tracepoints of xtrace: cross-CPU function calls and TLB flushes.
 *
 * Goes to xen/include/xen/smp_trace.h; legacy.cocci or lockless.cocci insert the calls. For Xen 4.17 and later.
 */

#ifndef XEN_SMP_TRACE_H
#define XEN_SMP_TRACE_H

#include <xen/cpumask.h>
#include <xen/percpu.h>
#include <xen/smp.h>
#include <xen/trace.h>

/* A subclass of TRC_HW that Xen leaves free. The words of each event stand behind it; all are 32 bits wide. */
#define TRC_HW_SMP             0x00804000
#define TRC_SMP_CALL_START     (TRC_HW_SMP + 0x01) /* seq, func_lo, func_hi, flags */
#define TRC_SMP_CALL_SEND      (TRC_HW_SMP + 0x02) /* seq, first_cpu, mask_lo, mask_hi */
#define TRC_SMP_CALL_DONE      (TRC_HW_SMP + 0x03) /* seq */
#define TRC_SMP_CALL_ENTER     (TRC_HW_SMP + 0x04) /* initiator_cpu, seq */
#define TRC_SMP_CALL_EXIT      (TRC_HW_SMP + 0x05) /* initiator_cpu, seq */
#define TRC_TLB_FLUSH_START    (TRC_HW_SMP + 0x11) /* seq, va_lo, va_hi, flush_flags */
#define TRC_TLB_FLUSH_SEND     (TRC_HW_SMP + 0x12) /* seq, first_cpu, mask_lo, mask_hi */
#define TRC_TLB_FLUSH_DONE     (TRC_HW_SMP + 0x13) /* seq */
#define TRC_TLB_FLUSH_ENTER    (TRC_HW_SMP + 0x14) /* initiator_cpu, seq */
#define TRC_TLB_FLUSH_EXIT     (TRC_HW_SMP + 0x15) /* initiator_cpu, seq */

/* SMP_CALL_START.flags: bit 0 the initiator waits, bits 16-31 CPUs in the mask. */
#define SMP_TRACE_FLAGS(wait, cpus) (((wait) ? 1 : 0) | ((cpus) << 16))

/* A record with the cycle count. TRACE_TIME() came with 4.19; before, trace_var() was told so by an argument. */
#ifdef TRACE_TIME
#define SMP_TRACE(event, ...) TRACE_TIME(event, __VA_ARGS__)
#else
#define SMP_TRACE(event, ...)                                  \
    do {                                                       \
        uint32_t words_[] = { __VA_ARGS__ };                   \
        trace_var(event, true, sizeof(words_), words_);        \
    } while ( 0 )
#endif

/* Which call or flush: the initiator hands this to the targets. */
struct smp_trace_id {
    uint32_t cpu;
    uint32_t seq;
};

/* Counted where this file is included: calls in common/smp.c, flushes in arch/x86/smp.c. */
static DEFINE_PER_CPU(uint32_t, smp_trace_seq);

/* Counts while nobody traces, too: what is in flight when tracing starts then has a number of its own. */
static inline struct smp_trace_id smp_trace_next(void)
{
    struct smp_trace_id id = { .cpu = smp_processor_id() };
    unsigned long flags;

    /* An interrupt between load and store would give its own request the same number. */
    local_irq_save(flags);
    id.seq = ++this_cpu(smp_trace_seq);
    local_irq_restore(flags);

    return id;
}

/* 32 CPUs of a mask; of the bits beyond nr_cpu_ids there may be no memory. */
static inline uint32_t smp_trace_word(const cpumask_t *mask, unsigned int cpu)
{
    return cpu < nr_cpu_ids ? cpumask_bits(mask)[cpu / BITS_PER_LONG] >> (cpu % BITS_PER_LONG) : 0;
}

/* One record for each 64 CPUs of which any is in the mask. */
static inline void smp_trace_send(uint32_t event, struct smp_trace_id id, const cpumask_t *mask)
{
    unsigned int first;

    if ( likely(!tb_init_done) )
        return;

    for ( first = 0; first < nr_cpu_ids; first += 64 )
    {
        uint32_t lo = smp_trace_word(mask, first), hi = smp_trace_word(mask, first + 32);

        if ( lo | hi )
            SMP_TRACE(event, id.seq, first, lo, hi);
    }
}

/* An empty mask asks for nothing: no record, no number. One that others fill right after has number 0, and no START. */
static inline struct smp_trace_id smp_trace_call_start(void (*func)(void *info), int wait, const cpumask_t *mask)
{
    struct smp_trace_id id = { .cpu = smp_processor_id() };
    uint64_t address = (unsigned long)func;

    if ( cpumask_empty(mask) )
        return id;

    id = smp_trace_next();
    if ( unlikely(tb_init_done) )
        SMP_TRACE(TRC_SMP_CALL_START, id.seq, address, address >> 32, SMP_TRACE_FLAGS(wait, cpumask_weight(mask)));

    return id;
}

static inline void smp_trace_call_send(struct smp_trace_id id, const cpumask_t *mask)
{
    smp_trace_send(TRC_SMP_CALL_SEND, id, mask);
}

static inline void smp_trace_call_done(struct smp_trace_id id)
{
    SMP_TRACE(TRC_SMP_CALL_DONE, id.seq);
}

static inline void smp_trace_call_enter(struct smp_trace_id id)
{
    SMP_TRACE(TRC_SMP_CALL_ENTER, id.cpu, id.seq);
}

static inline void smp_trace_call_exit(struct smp_trace_id id)
{
    SMP_TRACE(TRC_SMP_CALL_EXIT, id.cpu, id.seq);
}

static inline struct smp_trace_id smp_trace_flush_start(const void *va, unsigned int flags)
{
    struct smp_trace_id id = smp_trace_next();
    uint64_t address = (unsigned long)va;

    SMP_TRACE(TRC_TLB_FLUSH_START, id.seq, address, address >> 32, flags);

    return id;
}

static inline void smp_trace_flush_send(struct smp_trace_id id, const cpumask_t *mask)
{
    smp_trace_send(TRC_TLB_FLUSH_SEND, id, mask);
}

static inline void smp_trace_flush_done(struct smp_trace_id id)
{
    SMP_TRACE(TRC_TLB_FLUSH_DONE, id.seq);
}

static inline void smp_trace_flush_enter(struct smp_trace_id id)
{
    SMP_TRACE(TRC_TLB_FLUSH_ENTER, id.cpu, id.seq);
}

static inline void smp_trace_flush_exit(struct smp_trace_id id)
{
    SMP_TRACE(TRC_TLB_FLUSH_EXIT, id.cpu, id.seq);
}

#endif /* XEN_SMP_TRACE_H */
