/* A flush in the shape of Xen's legacy design: one request at a time on the host, under a lock, by its own vector. */

#include <xen/sched.h>
#include <xen/spinlock.h>

static DEFINE_SPINLOCK(flush_lock);
static cpumask_t flush_cpumask;
static const void *flush_va;
static unsigned int flush_flags;

void cf_check invalidate_interrupt(void)
{
    unsigned int flags = flush_flags;

    ack_APIC_irq();
    perfc_incr(ipis);
    if ( flags )
        flush_area_local(flush_va, flags);
    cpumask_clear_cpu(smp_processor_id(), &flush_cpumask);
}

void flush_area_mask(const cpumask_t *mask, const void *va, unsigned int flags)
{
    unsigned int me = smp_processor_id();
    cpumask_t others = *mask;

    if ( cpumask_test_cpu(me, mask) )
        flush_area_local(va, flags);
    cpumask_clear_cpu(me, &others);

    if ( !cpumask_empty(&others) )
    {
        spin_lock(&flush_lock);
        cpumask_and(&flush_cpumask, &others, &cpu_online_map);
        flush_va = va;
        flush_flags = flags;
        send_IPI_mask(&flush_cpumask, INVALIDATE_TLB_VECTOR);
        while ( !cpumask_empty(&flush_cpumask) )
            cpu_relax();
        spin_unlock(&flush_lock);
    }
}
