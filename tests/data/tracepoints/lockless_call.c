/* A call in the shape of the lockless design: each CPU has a request, and a mask says whose are to be looked at. */

#include <xen/smp.h>

struct call_data_struct {
    void (*func)(void *info);
    void *info;
    int wait;
    cpumask_t selected;
};

static DEFINE_PER_CPU(struct call_data_struct, call_data);
static cpumask_t active;

void on_selected_cpus(const cpumask_t *selected, void (*func)(void *info), void *info, int wait)
{
    unsigned int me = smp_processor_id();
    struct call_data_struct *own = &this_cpu(call_data);

    ASSERT(local_irq_is_enabled());
    if ( cpumask_empty(selected) )
        return;

    /* The one before, if nobody waited for it. */
    while ( !cpumask_empty(&own->selected) )
        cpu_relax();
    cpumask_clear_cpu(me, &active);

    own->func = func;
    own->info = info;
    own->wait = wait;
    cpumask_copy(&own->selected, selected);
    cpumask_set_cpu(me, &active);
    smp_send_call_function_mask(&own->selected);
    if ( wait )
    {
        while ( !cpumask_empty(&own->selected) )
            cpu_relax();
        cpumask_clear_cpu(me, &active);
    }
}

void smp_call_function_interrupt(void)
{
    unsigned int me = smp_processor_id(), initiator;
    struct call_data_struct *its;
    void (*func)(void *info);
    void *info;

    for_each_cpu ( initiator, &active )
    {
        its = &per_cpu(call_data, initiator);
        if ( !cpumask_test_cpu(me, &its->selected) )
            continue;

        func = its->func;
        info = its->info;
        if ( unlikely(!func) )
        {
            cpumask_clear_cpu(me, &its->selected);
        }
        else if ( its->wait )
        {
            (*func)(info);
            cpumask_clear_cpu(me, &its->selected);
        }
        else
        {
            cpumask_clear_cpu(me, &its->selected);
            (*func)(info);
        }
    }
}
